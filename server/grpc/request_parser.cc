#include "server/grpc/request_parser.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/unknown_field_set.h>

#include "absl/strings/str_cat.h"
#include "base/text.h"
#include "server/frontend/error.h"

namespace lorikeet {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::UnknownField;
using google::protobuf::UnknownFieldSet;

// Deeper messages than this are not ours.
constexpr int kMaxDepth = 32;

// Returns the path of a string field below `type` that is no UTF-8, or "".
std::string FindBadString(const Descriptor& type, const UnknownFieldSet& fields,
                          int depth) {
  for (int i = 0; i < fields.field_count() && depth < kMaxDepth; ++i) {
    const UnknownField& field = fields.field(i);
    if (field.type() != UnknownField::TYPE_LENGTH_DELIMITED) continue;
    const FieldDescriptor* const what = type.FindFieldByNumber(field.number());
    if (what == nullptr) continue;
    if (what->type() == FieldDescriptor::TYPE_STRING &&
        !IsValidUtf8(field.length_delimited())) {
      return what->name();
    }
    if (what->type() != FieldDescriptor::TYPE_MESSAGE) continue;
    UnknownFieldSet inner;
    if (!inner.ParseFromString(field.length_delimited())) continue;
    const std::string path =
        FindBadString(*what->message_type(), inner, depth + 1);
    if (!path.empty()) return absl::StrCat(what->name(), ".", path);
  }
  return "";
}

}  // namespace

absl::Status ParseMessage(const std::string& bytes,
                          google::protobuf::Message* message) {
  if (message->ParseFromString(bytes)) return absl::OkStatus();
  UnknownFieldSet fields;
  if (fields.ParseFromString(bytes)) {
    const std::string path =
        FindBadString(*message->GetDescriptor(), fields, 0);
    if (!path.empty()) {
      return FieldError(path, "is not valid UTF-8", "INVALID_UTF8");
    }
  }
  return WithReason(absl::InvalidArgumentError(absl::StrCat(
                        "request is not a well-formed ",
                        std::string(message->GetDescriptor()->full_name()))),
                    "MALFORMED_MESSAGE");
}

}  // namespace lorikeet
