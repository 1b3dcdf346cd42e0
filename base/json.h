// A Json is a parsed JSON value; objects keep the order of the text, since the
// order of keys has a meaning in some files (PEFT's rank_pattern).
//
// Parsing is strict (RFC 8259) with limits on depth and size; a key that
// stands twice in one object is an error. Numbers are int64 where the text is
// an integer that fits, else double. Floats are written with the fewest digits
// that read back as the same value. Value type, thread-compatible.

#ifndef LORIKEET_BASE_JSON_H_
#define LORIKEET_BASE_JSON_H_

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace lorikeet {

class Json {
 public:
  using Member = std::pair<std::string, Json>;

  Json() = default;                                      // null
  Json(bool v) : value_(v) {}                            // NOLINT
  Json(int v) : value_(static_cast<int64_t>(v)) {}       // NOLINT
  Json(int64_t v) : value_(v) {}                         // NOLINT
  Json(uint32_t v) : value_(static_cast<int64_t>(v)) {}  // NOLINT
  Json(uint64_t v);                                      // NOLINT
  Json(double v) : value_(v) {}                          // NOLINT
  Json(float v) : value_(v) {}                           // NOLINT
  Json(absl::string_view v) : value_(std::string(v)) {}  // NOLINT
  Json(std::string v) : value_(std::move(v)) {}          // NOLINT
  Json(const char* v) : value_(std::string(v)) {}        // NOLINT
  static Json Array() { return Json(std::vector<Json>()); }
  static Json Object() { return Json(std::vector<Member>()); }

  // Parses one value that fills `text` but for white space.
  //
  // Errors: INVALID_ARGUMENT with the position, if it is no JSON, nests deeper
  // than `max_depth`, has a duplicate key or a number outside double.
  static absl::StatusOr<Json> Parse(absl::string_view text, int max_depth = 64);

  bool is_null() const { return Is<std::monostate>(); }
  bool is_bool() const { return Is<bool>(); }
  bool is_int() const { return Is<int64_t>(); }
  bool is_number() const {
    return Is<int64_t>() || Is<double>() || Is<float>();
  }
  bool is_string() const { return Is<std::string>(); }
  bool is_array() const { return Is<std::vector<Json>>(); }
  bool is_object() const { return Is<std::vector<Member>>(); }
  // "null", "a boolean", "an integer", "a number", "a string", "a list",
  // "an object": for messages.
  const char* TypeName() const;

  // REQUIRES: the value has the type.
  bool AsBool() const { return std::get<bool>(value_); }
  int64_t AsInt() const { return std::get<int64_t>(value_); }
  double AsDouble() const;  // also for an integer
  const std::string& AsString() const { return std::get<std::string>(value_); }
  const std::vector<Json>& items() const {
    return std::get<std::vector<Json>>(value_);
  }
  const std::vector<Member>& members() const {
    return std::get<std::vector<Member>>(value_);
  }

  // Returns the member called `key`, or nullptr if there is none or this is no
  // object. Linear in the number of members.
  const Json* Find(absl::string_view key) const;

  // REQUIRES: is_object(). Replaces the member if there is one.
  void Set(absl::string_view key, Json value);
  // REQUIRES: is_array().
  void Append(Json value);

  // Returns the shortest text, on one line; with `indent` > 0 many lines.
  // Strings that are no UTF-8 are written with U+FFFD in place of bad bytes;
  // NaN and infinities as null.
  std::string Dump(int indent = 0) const;

  friend bool operator==(const Json&, const Json&) = default;

 private:
  explicit Json(std::vector<Json> v) : value_(std::move(v)) {}
  explicit Json(std::vector<Member> v) : value_(std::move(v)) {}
  template <typename T>
  bool Is() const {
    return std::holds_alternative<T>(value_);
  }
  void DumpTo(int indent, int level, std::string* out) const;

  friend class JsonBuilder;
  std::variant<std::monostate, bool, int64_t, double, float, std::string,
               std::vector<Json>, std::vector<Member>>
      value_;
};

// Typed look-ups with messages that name the field: "`what` field "r" is a
// string, expected an integer in [1, 64]".
//
// A JsonReader also remembers which keys were asked for, so that unknown ones
// can be refused by name.
class JsonReader {
 public:
  // `what` names the file or message, for errors. `object` must outlive this.
  // REQUIRES: object.is_object().
  JsonReader(const Json& object, std::string what);

  // Returns the value or, if the key is missing or null, `fallback`.
  // Errors: INVALID_ARGUMENT naming key, value and limits.
  absl::StatusOr<int64_t> Int(absl::string_view key, int64_t fallback,
                              int64_t min, int64_t max);
  absl::StatusOr<double> Double(absl::string_view key, double fallback,
                                double min, double max);
  absl::StatusOr<bool> Bool(absl::string_view key, bool fallback);
  absl::StatusOr<std::string> String(absl::string_view key,
                                     absl::string_view fallback);
  // Returns nullptr if the key is missing or null; marks it as known.
  const Json* Get(absl::string_view key);
  // Errors: INVALID_ARGUMENT naming the key if it is missing or null.
  absl::Status Require(absl::string_view key) const;
  // Returns the keys nobody asked for, in the order of the text.
  std::vector<std::string> UnknownKeys() const;
  // Returns INVALID_ARGUMENT "`what` field "`key`" `rest`".
  absl::Status Error(absl::string_view key, absl::string_view rest) const;

 private:
  const Json& object_;
  const std::string what_;
  std::vector<std::string> known_;
};

}  // namespace lorikeet

#endif  // LORIKEET_BASE_JSON_H_
