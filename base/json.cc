#include "base/json.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include <nlohmann/json.hpp>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/check.h"
#include "base/text.h"

namespace lorikeet {

// Receives nlohmann's parse events and builds our value.
class JsonBuilder {
 public:
  explicit JsonBuilder(int max_depth) : max_depth_(max_depth) {}

  bool null() { return Add(Json()); }
  bool boolean(bool v) { return Add(Json(v)); }
  bool number_integer(int64_t v) { return Add(Json(v)); }
  bool number_unsigned(uint64_t v) { return Add(Json(v)); }
  bool number_float(double v, const std::string&) { return Add(Json(v)); }
  bool string(std::string& v) { return Add(Json(std::move(v))); }
  bool binary(std::vector<uint8_t>&) { return Fail("binary value"); }
  bool start_object(size_t) { return Open(Json::Object()); }
  bool start_array(size_t) { return Open(Json::Array()); }
  bool end_object() { return Close(); }
  bool end_array() { return Close(); }
  bool key(std::string& key) {
    if (!keys_.back().insert(key).second) {
      return Fail(absl::StrCat("duplicate key ", Quote(key)));
    }
    pending_key_.back() = std::move(key);
    return true;
  }
  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception& e) {
    // 406 is "number overflow": the text is JSON, the value is not ours.
    return Fail(
        absl::StrCat(e.id == 406 ? "number out of range" : "no valid JSON",
                     " at byte ", position));
  }

  const std::string& error() const { return error_; }
  Json TakeResult() { return std::move(root_); }

 private:
  bool Fail(absl::string_view message) {
    if (error_.empty()) error_ = std::string(message);
    return false;
  }

  bool Open(Json container) {
    if (static_cast<int>(stack_.size()) >= max_depth_) {
      return Fail(absl::StrCat("nesting deeper than ", max_depth_));
    }
    stack_.push_back(std::move(container));
    pending_key_.emplace_back();
    keys_.emplace_back();
    return true;
  }

  bool Close() {
    Json done = std::move(stack_.back());
    stack_.pop_back();
    pending_key_.pop_back();
    keys_.pop_back();
    return Add(std::move(done));
  }

  bool Add(Json value) {
    if (stack_.empty()) {
      root_ = std::move(value);
      return true;
    }
    Json& top = stack_.back();
    if (top.is_array()) {
      std::get<std::vector<Json>>(top.value_).push_back(std::move(value));
    } else {
      std::get<std::vector<Json::Member>>(top.value_)
          .emplace_back(std::move(pending_key_.back()), std::move(value));
    }
    return true;
  }

  const int max_depth_;
  std::vector<Json> stack_;
  std::vector<std::string> pending_key_;
  std::vector<absl::flat_hash_set<std::string>> keys_;
  Json root_;
  std::string error_;
};

namespace {

void DumpString(absl::string_view s, std::string* out) {
  *out += '"';
  // nlohmann escapes correctly and replaces what is no UTF-8.
  const std::string text =
      nlohmann::json(std::string(s))
          .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  out->append(text, 1, text.size() - 2);
  *out += '"';
}

template <typename T>
void DumpFloat(T v, std::string* out) {
  if (!std::isfinite(v)) {
    *out += "null";
    return;
  }
  char buffer[64];
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), v).ptr;
  out->append(buffer, end);
  // "1" is an integer to a JSON reader; keep a float a float.
  const absl::string_view text(buffer, static_cast<size_t>(end - buffer));
  if (text.find_first_of(".e") == absl::string_view::npos) *out += ".0";
}

void NewLine(int indent, int level, std::string* out) {
  if (indent <= 0) return;
  *out += '\n';
  out->append(static_cast<size_t>(indent * level), ' ');
}

}  // namespace

Json::Json(uint64_t v) {
  if (v <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    value_ = static_cast<int64_t>(v);
  } else {
    value_ = static_cast<double>(v);
  }
}

absl::StatusOr<Json> Json::Parse(absl::string_view text, int max_depth) {
  JsonBuilder builder(max_depth);
  const bool ok = nlohmann::json::sax_parse(text.begin(), text.end(), &builder);
  if (!ok) return absl::InvalidArgumentError(builder.error());
  return builder.TakeResult();
}

const char* Json::TypeName() const {
  if (is_null()) return "null";
  if (is_bool()) return "a boolean";
  if (is_int()) return "an integer";
  if (is_number()) return "a number";
  if (is_string()) return "a string";
  if (is_array()) return "a list";
  return "an object";
}

double Json::AsDouble() const {
  if (is_int()) return static_cast<double>(AsInt());
  if (Is<float>()) return std::get<float>(value_);
  return std::get<double>(value_);
}

const Json* Json::Find(absl::string_view key) const {
  if (!is_object()) return nullptr;
  for (const Member& m : members()) {
    if (m.first == key) return &m.second;
  }
  return nullptr;
}

void Json::Set(absl::string_view key, Json value) {
  auto& object = std::get<std::vector<Member>>(value_);
  for (Member& m : object) {
    if (m.first == key) {
      m.second = std::move(value);
      return;
    }
  }
  object.emplace_back(std::string(key), std::move(value));
}

void Json::Append(Json value) {
  std::get<std::vector<Json>>(value_).push_back(std::move(value));
}

std::string Json::Dump(int indent) const {
  std::string out;
  DumpTo(indent, 0, &out);
  return out;
}

void Json::DumpTo(int indent, int level, std::string* out) const {
  if (is_null()) {
    *out += "null";
  } else if (is_bool()) {
    *out += AsBool() ? "true" : "false";
  } else if (is_int()) {
    absl::StrAppend(out, AsInt());
  } else if (Is<float>()) {
    DumpFloat(std::get<float>(value_), out);
  } else if (is_number()) {
    DumpFloat(std::get<double>(value_), out);
  } else if (is_string()) {
    DumpString(AsString(), out);
  } else if (is_array()) {
    *out += '[';
    for (size_t i = 0; i < items().size(); ++i) {
      if (i > 0) *out += indent > 0 ? "," : ", ";
      NewLine(indent, level + 1, out);
      items()[i].DumpTo(indent, level + 1, out);
    }
    if (!items().empty()) NewLine(indent, level, out);
    *out += ']';
  } else {
    *out += '{';
    for (size_t i = 0; i < members().size(); ++i) {
      if (i > 0) *out += indent > 0 ? "," : ", ";
      NewLine(indent, level + 1, out);
      DumpString(members()[i].first, out);
      *out += ": ";
      members()[i].second.DumpTo(indent, level + 1, out);
    }
    if (!members().empty()) NewLine(indent, level, out);
    *out += '}';
  }
}

JsonReader::JsonReader(const Json& object, std::string what)
    : object_(object), what_(std::move(what)) {
  CHECK(object.is_object());
}

const Json* JsonReader::Get(absl::string_view key) {
  known_.emplace_back(key);
  const Json* value = object_.Find(key);
  return value == nullptr || value->is_null() ? nullptr : value;
}

absl::Status JsonReader::Require(absl::string_view key) const {
  const Json* value = object_.Find(key);
  if (value != nullptr && !value->is_null()) return absl::OkStatus();
  return Error(key, "is missing");
}

absl::Status JsonReader::Error(absl::string_view key,
                               absl::string_view rest) const {
  return absl::InvalidArgumentError(
      absl::StrCat(what_, " field ", Quote(key), " ", rest));
}

absl::StatusOr<int64_t> JsonReader::Int(absl::string_view key, int64_t fallback,
                                        int64_t min, int64_t max) {
  const Json* value = Get(key);
  if (value == nullptr) return fallback;
  const std::string limits =
      absl::StrCat(", expected an integer in [", min, ", ", max, "]");
  // 8.0 is an integer to Python's readers as well.
  int64_t v = 0;
  if (value->is_int()) {
    v = value->AsInt();
  } else if (value->is_number() && std::abs(value->AsDouble()) < 9.0e15 &&
             std::floor(value->AsDouble()) == value->AsDouble()) {
    v = static_cast<int64_t>(value->AsDouble());
  } else {
    return Error(key, absl::StrCat("is ", Escape(value->Dump(), 40), limits));
  }
  if (v < min || v > max) return Error(key, absl::StrCat("is ", v, limits));
  return v;
}

absl::StatusOr<double> JsonReader::Double(absl::string_view key,
                                          double fallback, double min,
                                          double max) {
  const Json* value = Get(key);
  if (value == nullptr) return fallback;
  const std::string limits =
      absl::StrCat(", expected a number in [", min, ", ", max, "]");
  if (!value->is_number()) {
    return Error(key, absl::StrCat("is ", Escape(value->Dump(), 40), limits));
  }
  const double v = value->AsDouble();
  if (!(v >= min && v <= max)) {
    return Error(key, absl::StrCat("is ", v, limits));
  }
  return v;
}

absl::StatusOr<bool> JsonReader::Bool(absl::string_view key, bool fallback) {
  const Json* value = Get(key);
  if (value == nullptr) return fallback;
  if (value->is_bool()) return value->AsBool();
  return Error(key, absl::StrCat("is ", Escape(value->Dump(), 40),
                                 ", expected true or false"));
}

absl::StatusOr<std::string> JsonReader::String(absl::string_view key,
                                               absl::string_view fallback) {
  const Json* value = Get(key);
  if (value == nullptr) return std::string(fallback);
  if (value->is_string()) return value->AsString();
  return Error(key, absl::StrCat("is ", Escape(value->Dump(), 40),
                                 ", expected a string"));
}

std::vector<std::string> JsonReader::UnknownKeys() const {
  std::vector<std::string> unknown;
  for (const Json::Member& m : object_.members()) {
    if (std::find(known_.begin(), known_.end(), m.first) == known_.end()) {
      unknown.push_back(m.first);
    }
  }
  return unknown;
}

}  // namespace lorikeet
