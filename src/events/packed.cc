#include "events/packed.h"

#include "base/digest.h"
#include "events/message_types.h"
#include "events/packed_messages.h"
#include "events/utf8.h"

namespace lockstep::packed {

namespace {

bool is_utf8(std::string_view text) {
  for (;;) {
    std::uint64_t word = 0;
    while (text.size() >= 8) {  // most text is ASCII
      std::memcpy(&word, text.data(), 8);
      if ((word & 0x8080'8080'8080'8080) != 0) break;
      text.remove_prefix(8);
    }
    if (text.empty()) return true;
    const std::size_t length = json::utf8_sequence_length(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
}

}  // namespace

std::string packed_schema() {
  json::Schema schema;
  for (const MessageType& each : message_types()) each.describe(schema, each.section);
  boost::mp11::mp_for_each<boost::mp11::mp_transform<std::type_identity, PackedLinkMessages>>(
      [&]<class Message>(std::type_identity<Message>) { schema.add_document<Message>("§3.5"); });
  return schema.text("Messages of lockstep");
}

std::string schema_digest() { return sha256_hex(cat("packed 1\n", packed_schema())); }

bool Reader::fail(std::string message) {
  if (!error_) error_ = lockstep::fail(ErrorCode::invalid_argument, std::move(message));
  return false;
}

bool Reader::cut_short() { return fail("the message ends too early"); }

bool Reader::within(std::string_view member) {
  if (error_) error_->pointer = cat("/", member, error_->pointer);
  return false;
}

bool Reader::text(std::string_view& out) {
  std::uint32_t length = 0;
  if (!number(length)) return false;
  if (length > rest_.size()) return cut_short();
  out = rest_.substr(0, length);
  rest_.remove_prefix(length);
  return is_utf8(out) || fail("this text is not UTF-8");
}

bool Reader::count(std::uint32_t& out) {
  if (!number(out)) return false;
  return out <= rest_.size() || fail(cat(out, " values cannot stand in ", rest_.size(), " bytes"));
}

}  // namespace lockstep::packed
