#include "domains/model/safetensors.h"

#include <array>
#include <map>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "base/text.h"
#include "events/json_read.h"

namespace lockstep::model {
namespace {

// Two tensors: 2x3 F32 (24 bytes) and 5 F16 (10 bytes).
const std::string valid_header =
    R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
    R"("b":{"dtype":"F16","shape":[5],"data_offsets":[24,34]}})";
constexpr std::uint64_t valid_data = 34;

Result<std::vector<Tensor>> parse(const std::string& header, std::uint64_t data) {
  return parse_safetensors_header(header, 8 + header.size() + data);
}

std::string refusal(const std::string& header, std::uint64_t data) {
  const auto tensors = parse(header, data);
  EXPECT_FALSE(tensors.has_value()) << header;
  if (tensors) return "";
  EXPECT_EQ(tensors.error().code, ErrorCode::data_loss);
  return tensors.error().message;
}

std::string tensor(std::string_view name, std::string_view dtype, std::string_view shape, std::string_view offsets) {
  return cat("\"", name, R"(":{"dtype":")", dtype, R"(","shape":)", shape, R"(,"data_offsets":)", offsets, "}");
}

std::array<std::uint8_t, 8> first_eight(std::uint64_t length) {
  std::array<std::uint8_t, 8> out{};
  for (std::size_t i = 0; i < 8; ++i) out[i] = static_cast<std::uint8_t>(length >> (8 * i));
  return out;
}

TEST(Safetensors, a_valid_header_gives_its_tensors_in_file_order) {
  const auto tensors = parse(valid_header, valid_data);
  ASSERT_TRUE(tensors.has_value()) << tensors.error().message;
  ASSERT_EQ(tensors->size(), 2u);
  const std::uint64_t data = 8 + valid_header.size();
  EXPECT_EQ((*tensors)[0].name, "a");
  EXPECT_EQ((*tensors)[0].dtype, "F32");
  EXPECT_EQ((*tensors)[0].shape, (std::vector<std::uint64_t>{2, 3}));
  EXPECT_EQ((*tensors)[0].begin, data);
  EXPECT_EQ((*tensors)[0].bytes, 24u);
  EXPECT_EQ((*tensors)[1].begin, data + 24);
  EXPECT_EQ((*tensors)[1].bytes, 10u);
}

TEST(Safetensors, file_order_is_the_order_of_the_bytes_not_of_the_names) {
  const auto tensors =
      parse(cat("{", tensor("a", "U8", "[4]", "[6,10]"), ",", tensor("b", "U8", "[6]", "[0,6]"), "}"), 10);
  ASSERT_TRUE(tensors.has_value()) << tensors.error().message;
  EXPECT_EQ((*tensors)[0].name, "b");
  EXPECT_EQ((*tensors)[1].name, "a");
}

TEST(Safetensors, scalars_and_empty_tensors_are_valid) {
  const auto tensors =
      parse(cat("{", tensor("empty", "F32", "[0,7]", "[0,0]"), ",", tensor("scalar", "F64", "[]", "[0,8]"), "}"), 8);
  ASSERT_TRUE(tensors.has_value()) << tensors.error().message;
  EXPECT_EQ(tensors->size(), 2u);
  EXPECT_TRUE(parse("{}", 0).has_value());
  EXPECT_TRUE(parse(cat("{", tensor("a", "U8", "[4]", "[0,4]"), "}    "), 4).has_value());  // padded with spaces
}

TEST(Safetensors, the_length_of_the_header_is_little_endian) {
  const auto length = safetensors_header_length(first_eight(0x0123), 100'000);
  ASSERT_TRUE(length.has_value());
  EXPECT_EQ(*length, 0x0123u);
}

TEST(Safetensors, a_header_longer_than_its_file_is_cut_short) {
  EXPECT_TRUE(safetensors_header_length(first_eight(92), 100).has_value());
  const auto length = safetensors_header_length(first_eight(93), 100);
  ASSERT_FALSE(length.has_value());
  EXPECT_EQ(length.error().code, ErrorCode::data_loss);
  EXPECT_EQ(length.error().message, "the header claims 93 bytes, but the file has 100: it is cut short");
}

TEST(Safetensors, a_header_over_the_limit_is_refused_before_anything_is_read) {
  const auto length = safetensors_header_length(first_eight(safetensors_header_max + 1), ~0ULL);
  ASSERT_FALSE(length.has_value());
  EXPECT_EQ(length.error().message, "the header claims 100000001 bytes; the limit is 100000000");
  EXPECT_FALSE(safetensors_header_length(first_eight(~0ULL), 100).has_value());  // -1 is not "small"
}

TEST(Safetensors, a_file_under_eight_bytes_is_refused) {
  const std::array<std::uint8_t, 3> three{};
  EXPECT_FALSE(safetensors_header_length(three, 3).has_value());
  EXPECT_FALSE(safetensors_header_length(first_eight(0), 7).has_value());
}

TEST(Safetensors, overlapping_ranges_are_refused) {
  const std::string text =
      refusal(cat("{", tensor("a", "U8", "[6]", "[0,6]"), ",", tensor("b", "U8", "[6]", "[4,10]"), "}"), 10);
  EXPECT_NE(text.find("tensor \"b\" begins at byte"), std::string::npos) << text;
  EXPECT_NE(text.find("overlap or leave a hole"), std::string::npos) << text;
}

TEST(Safetensors, a_hole_is_refused) {
  const std::string text =
      refusal(cat("{", tensor("a", "U8", "[4]", "[0,4]"), ",", tensor("b", "U8", "[4]", "[6,10]"), "}"), 10);
  EXPECT_NE(text.find("tensor \"b\""), std::string::npos) << text;
  EXPECT_NE(refusal(cat("{", tensor("a", "U8", "[4]", "[2,6]"), "}"), 6).find("tensor \"a\""), std::string::npos);
}

TEST(Safetensors, a_shape_that_overflows_is_refused) {
  const std::string text =
      refusal(cat("{", tensor("a", "F32", "[4294967296,4294967296]", "[0,0]"), "}"), 0);  // 2^66 is 0 when it wraps
  EXPECT_NE(text.find("tensor \"a\" has a shape that overflows"), std::string::npos) << text;
}

TEST(Safetensors, a_shape_that_does_not_fill_its_range_is_refused) {
  const std::string text = refusal(cat("{", tensor("a", "F32", "[2,3]", "[0,20]"), "}"), 20);
  EXPECT_NE(text.find("tensor \"a\" needs 24 bytes for its shape, but its range has 20"), std::string::npos) << text;
}

TEST(Safetensors, an_unknown_dtype_is_refused) {
  const std::string text = refusal(cat("{", tensor("a", "F7", "[4]", "[0,4]"), "}"), 4);
  EXPECT_NE(text.find("tensor \"a\" has the unknown dtype \"F7\""), std::string::npos) << text;
}

TEST(Safetensors, a_tensor_that_stands_twice_is_refused) {
  const std::string text =
      refusal(cat("{", tensor("a", "U8", "[4]", "[0,4]"), ",", tensor("a", "U8", "[4]", "[4,8]"), "}"), 8);
  EXPECT_NE(text.find("tensor \"a\" stands twice"), std::string::npos) << text;
}

TEST(Safetensors, bytes_after_the_last_tensor_are_refused) {
  const std::string text = refusal(valid_header, valid_data + 1);
  EXPECT_NE(text.find("the tensors end at byte"), std::string::npos) << text;
}

TEST(Safetensors, a_file_without_its_last_byte_is_cut_short) {
  const std::string text = refusal(valid_header, valid_data - 1);
  EXPECT_NE(text.find("tensor \"b\" ends at byte"), std::string::npos) << text;
  EXPECT_NE(text.find("it is cut short"), std::string::npos) << text;
}

TEST(Safetensors, offsets_that_are_no_range_are_refused) {
  for (const char* offsets : {"[]", "[0]", "[0,4,8]", "[4,0]"}) {
    EXPECT_NE(refusal(cat("{", tensor("a", "U8", "[4]", offsets), "}"), 4).find("data_offsets"), std::string::npos);
  }
  for (const char* offsets : {"[-1,3]", "[0,18446744073709551616]", "[0,\"4\"]", "{}"}) {
    EXPECT_NE(refusal(cat("{", tensor("a", "U8", "[4]", offsets), "}"), 4).find("/a/data_offsets"), std::string::npos);
  }
  // Near 2^64: sums must not wrap into the file.
  refusal(cat("{", tensor("a", "U8", "[4]", "[18446744073709551610,18446744073709551614]"), "}"), 4);
}

TEST(Safetensors, a_header_that_is_no_json_object_is_refused) {
  for (const char* header : {"", "[]", "{", "{\"a\":1}", "{\"a\":{}}", "{}x", "PK\x03\x04"}) refusal(header, 0);
}

// Whatever stands in a file, reading it ends in tensors that lie inside the file, or in a refusal.
TEST(Safetensors, mutated_headers_never_crash_and_never_lead_outside_the_file) {
  std::mt19937_64 chance(20250712);
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(chance() % n); };
  const std::string letters = "0123456789{}[]\":,.-eE\\ abFU\xFF\x00\n";
  int refused = 0;
  int accepted = 0;
  for (int round = 0; round < 2000; ++round) {
    std::string header = valid_header;
    for (std::size_t edits = 1 + below(3); edits > 0 && !header.empty(); --edits) {
      const std::size_t at = below(header.size());
      switch (below(4)) {
        case 0: header[at] = letters[below(letters.size())]; break;
        case 1: header.erase(at, 1 + below(8)); break;
        case 2: header.insert(at, 1, letters[below(letters.size())]); break;
        default: header.insert(at, header.substr(below(header.size()), below(24)));
      }
    }
    const std::uint64_t size = 8 + header.size() + valid_data;
    const auto tensors = parse_safetensors_header(header, size);
    refused += tensors ? 0 : 1;
    accepted += tensors ? 1 : 0;
    if (!tensors) {
      EXPECT_EQ(tensors.error().code, ErrorCode::data_loss);
      continue;
    }
    for (const Tensor& each : *tensors) EXPECT_LE(each.begin + each.bytes, size) << header;
    EXPECT_TRUE(lay_out({*tensors}).has_value());
  }
  EXPECT_GT(refused, 1000);
  EXPECT_GT(accepted, 10);  // a changed name or metadata is still a valid header
}

struct SegmentTensorText {
  std::string dtype;
  std::vector<std::uint64_t> shape;
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
};
BOOST_DESCRIBE_STRUCT(SegmentTensorText, (), (dtype, shape, offset, bytes))

struct SegmentText {
  std::string model;
  std::string component;
  std::string sha256;
  std::map<std::string, SegmentTensorText> tensors;
};
BOOST_DESCRIBE_STRUCT(SegmentText, (), (model, component, sha256, tensors))

std::vector<std::vector<Tensor>> two_files() {
  return {{{"a", "F32", {2, 3}, 100, 24}, {"b", "F16", {5}, 124, 10}}, {{"c", "U8", {257}, 80, 257}}};
}

// Design §8: an unaligned weight makes a linear layer up to six times slower.
TEST(Segment, every_tensor_begins_at_a_multiple_of_256) {
  const auto layout = lay_out(two_files());
  ASSERT_TRUE(layout.has_value());
  ASSERT_EQ(layout->pieces.size(), 3u);
  std::uint64_t end = 8;
  for (const CopyPiece& piece : layout->pieces) {
    EXPECT_EQ(piece.to % segment_alignment, 0u);
    EXPECT_GE(piece.to, end);  // nothing overlaps what stands before it
    end = piece.to + piece.bytes;
  }
  EXPECT_GE(layout->size.value, end);
  EXPECT_EQ(layout->pieces[1].from, 124u);
  EXPECT_EQ(layout->pieces[2].file, 1u);
}

TEST(Segment, its_header_can_be_read_and_says_where_the_pieces_are) {
  const auto layout = lay_out(two_files());
  ASSERT_TRUE(layout.has_value());
  const std::string header = segment_header(*layout, "m", "unet", std::string(64, 'a'));
  EXPECT_EQ(header.size(), layout->pieces.front().to);
  std::uint64_t length = 0;
  for (std::size_t i = 8; i-- > 0;) length = length << 8 | static_cast<std::uint8_t>(header[i]);
  EXPECT_EQ(length, header.size() - 8);
  const auto text = json::from_text<SegmentText>(std::string_view(header).substr(8));
  ASSERT_TRUE(text.has_value()) << text.error().message;
  EXPECT_EQ(text->model, "m");
  EXPECT_EQ(text->component, "unet");
  EXPECT_EQ(text->sha256, std::string(64, 'a'));
  const std::array<std::string, 3> names{"a", "b", "c"};
  ASSERT_EQ(text->tensors.size(), names.size());
  for (std::size_t i = 0; i < names.size(); ++i) {
    EXPECT_EQ(text->tensors.at(names[i]).offset, layout->pieces[i].to);
    EXPECT_EQ(text->tensors.at(names[i]).bytes, layout->pieces[i].bytes);
  }
  EXPECT_EQ(text->tensors.at("a").dtype, "F32");
  EXPECT_EQ(text->tensors.at("a").shape, (std::vector<std::uint64_t>{2, 3}));
}

TEST(Segment, the_header_has_room_for_the_longest_names) {
  const auto layout = lay_out(two_files());
  ASSERT_TRUE(layout.has_value());
  const std::string longest(128, 'x');
  EXPECT_EQ(segment_header(*layout, longest, longest, std::string(64, 'f')).size(),
            segment_header(*layout, "m", "c", std::string(64, '0')).size());
}

TEST(Segment, a_tensor_in_two_files_is_refused) {
  auto files = two_files();
  files[1][0].name = "a";
  const auto layout = lay_out(files);
  ASSERT_FALSE(layout.has_value());
  EXPECT_EQ(layout.error().message, "tensor \"a\" stands in two files");
}

TEST(Segment, a_component_without_tensors_is_only_a_header) {
  const auto layout = lay_out({{}});
  ASSERT_TRUE(layout.has_value());
  EXPECT_EQ(segment_header(*layout, "m", "c", std::string(64, '0')).size(), layout->size.value);
}

}  // namespace
}  // namespace lockstep::model
