// A whole worker in C++, without an interpreter: joins a running orchestrator and turns prompts into flat grey.
//   example_worker ADDRESS NAME SECRET      the secret stands in worker.secret of the data directory
#include <boost/crc.hpp>
#include "base/digest.h"
#include "env/real/memory_file.h"
#include "events/json_read.h"
#include "worker/real/runtime.h"
#include "worker/reports.h"
using namespace lockstep;

std::vector<real::Fd> sealed(const std::string& bytes) {
  const auto fill = [&](auto into) { return std::copy(bytes.begin(), bytes.end(), into.begin()), Status{}; };
  std::vector<real::Fd> out;
  out.push_back(*real::make_sealed("pixels", Bytes{bytes.size()}, fill));
  return out;
}
std::string number(std::size_t n) { return {char(n >> 24), char(n >> 16), char(n >> 8), char(n)}; }
std::string chunk(const std::string& body) {  // of a PNG: length, type and data, checksum
  boost::crc_32_type sum;
  sum.process_bytes(body.data(), body.size());
  return number(body.size() - 4) + body + number(sum.checksum());
}
std::string png(std::string_view rgb, std::uint32_t w, std::uint32_t h) {  // one stored block a row: large, but right
  std::string data = "IDAT\x78\x01";
  std::uint32_t a = 1, b = 0;
  for (std::uint32_t y = 0; y < h; ++y) {
    const std::string row = '\0' + std::string(rgb.substr(std::size_t{3} * w * y, std::size_t{3} * w));
    const std::uint16_t size = static_cast<std::uint16_t>(row.size());
    data += std::string{char(y + 1 == h), char(size), char(size >> 8), char(~size), char(~size >> 8)} + row;
    for (const unsigned char byte : row) a = (a + byte) % 65521, b = (b + a) % 65521;
  }
  const std::string head = number(w) + number(h) + std::string("\x08\x02\0\0\0", 5);
  return "\x89PNG\r\n\x1a\n" + chunk("IHDR" + head) + chunk(data + number(b << 16 | a)) + chunk("IEND");
}
int main(int argc, char** argv) {
  if (argc != 4) return 2;
  auto runtime = worker::Runtime::dial({.address = argv[1], .worker_id = argv[2], .secret = argv[3], .memory = 1_GiB});
  if (!runtime) return 2;
  (*runtime)->handlers_ready();
  while (const auto task = (*runtime)->next_task(-1)) {
    const auto fds = task->take_descriptors();
    if (task->kind() == "load") task->done(json::to_text(LoadDone{}), {});
    if (task->kind() == "release") task->done(json::to_text(ReleaseDone{}), {});
    const auto batch = json::from_text<InferenceBatchTask>(task->body());
    const auto image = json::from_text<InferenceTask>(task->body());
    for (const auto& it : batch ? batch->images : std::vector(image ? 1 : 0, image.value_or(InferenceTask{}))) {
      const std::string rgb(std::size_t{3} * it.width * it.height, sha256_hex(it.prompt)[0]);
      auto done = json::to_text(InferenceDone{0, it.steps, it.width, it.height, rgb.size(), sha256_hex(rgb), {}, 5});
      batch ? task->part(it.request_id, done, sealed(rgb)) : task->done(done, sealed(rgb));
    }
    if (batch) task->done("{}", {});
    if (const auto it = json::from_text<PostprocessTask>(task->body()); it && task->kind() == "postprocess" && fds) {
      const auto& [format, w, h, bytes, digest] = it->source;
      const std::string file = png(*real::read_verified(fds->at(0).get(), bytes, digest), w, h);
      const PostprocessOutput output{w, h, file.size(), sha256_hex(file)};
      task->done(json::to_text(PostprocessDone{{}, {}, {}, output, 0, {}}), sealed(file));
    }
  }  // a task that is left unanswered has failed
}
