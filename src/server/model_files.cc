#include "server/model_files.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <set>

#include "base/digest.h"
#include "base/text.h"
#include "domains/model/safetensors.h"
#include "env/real/blob_store.h"
#include "env/real/memory_file.h"
#include "events/json_read.h"

namespace lockstep::server {

namespace fs = std::filesystem;

namespace {

struct ModelIndex {
  std::string _class_name;
};
BOOST_DESCRIBE_STRUCT(ModelIndex, (), (_class_name))

struct ClassifierConfig {
  std::optional<std::vector<std::string>> architectures;
};
BOOST_DESCRIBE_STRUCT(ClassifierConfig, (), (architectures))

Result<real::Fd> open_file(const std::string& path) {
  real::Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return fail(ErrorCode::unavailable, cat("cannot open ", path, ": ", std::strerror(errno)));
  return file;
}

Status read_at(int fd, std::uint64_t at, std::span<std::uint8_t> into, const std::string& path) {
  while (!into.empty()) {
    const ssize_t got = ::pread(fd, into.data(), into.size(), static_cast<off_t>(at));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(ErrorCode::unavailable, cat("cannot read ", path, ": ", std::strerror(errno)));
    if (got == 0) return fail(ErrorCode::data_loss, cat(path, " ends at byte ", at, ": it is cut short"));
    into = into.subspan(static_cast<std::size_t>(got));
    at += static_cast<std::uint64_t>(got);
  }
  return {};
}

model::File facts_of(int fd, const std::string& path) {
  struct stat facts{};
  ::fstat(fd, &facts);
  return {path, Bytes{static_cast<std::uint64_t>(facts.st_size)},
          facts.st_mtim.tv_sec * std::int64_t{1'000'000'000} + facts.st_mtim.tv_nsec};
}

struct ScannedFile {
  model::File file;
  std::vector<model::Tensor> tensors;
};

Result<ScannedFile> scan_file(const std::string& path) {
  const real::Fd fd = LOCKSTEP_TRY(open_file(path));
  ScannedFile out{facts_of(fd.get(), path), {}};
  const std::uint64_t size = out.file.size.value;
  std::array<std::uint8_t, 8> head{};
  const auto named = [&](const Error& error) { return fail(error.code, cat(path, ": ", error.message)); };
  if (size >= head.size()) LOCKSTEP_TRY_STATUS(read_at(fd.get(), 0, head, path));
  const auto length = model::safetensors_header_length(head, size);
  if (!length) return named(length.error());
  std::string header(*length, '\0');
  LOCKSTEP_TRY_STATUS(read_at(fd.get(), 8, {reinterpret_cast<std::uint8_t*>(header.data()), header.size()}, path));
  auto tensors = model::parse_safetensors_header(header, size);
  if (!tensors) return named(tensors.error());
  out.tensors = *std::move(tensors);
  return out;
}

bool is_pickle(const fs::path& file) {
  static const std::set<std::string> endings{".bin", ".pt", ".pth", ".ckpt", ".pkl"};
  return endings.contains(file.extension().string());
}

/// The component's safetensors files in name order, which is the order their bytes are hashed in.
Result<std::vector<std::string>> weights_in(const fs::path& folder) {
  std::vector<std::string> out;
  bool pickle = false;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (!entry.is_regular_file(error)) continue;
    if (entry.path().extension() == ".safetensors") out.push_back(entry.path().string());
    pickle = pickle || is_pickle(entry.path());
  }
  if (error) return fail(ErrorCode::unavailable, cat("cannot read ", folder.string(), ": ", error.message()));
  if (out.empty() && pickle) {
    return fail(ErrorCode::invalid_argument,
                cat(folder.string(), " holds pickle files only; they can run code and are refused, use safetensors"));
  }
  std::ranges::sort(out);
  return out;
}

struct ScannedComponent {
  model::Component component;
  std::shared_ptr<const model::SegmentLayout> layout;
};

Result<ScannedComponent> scan_component(const std::string& name, const std::vector<std::string>& paths) {
  ScannedComponent out;
  out.component.name = name;
  std::vector<std::vector<model::Tensor>> tensors;
  std::set<std::string> dtypes;
  for (const std::string& path : paths) {
    ScannedFile file = LOCKSTEP_TRY(scan_file(path));
    out.component.files.push_back(file.file);
    out.component.tensors += file.tensors.size();
    for (const model::Tensor& tensor : file.tensors) dtypes.insert(tensor.dtype);
    tensors.push_back(std::move(file.tensors));
  }
  out.component.dtypes.assign(dtypes.begin(), dtypes.end());
  out.layout = std::make_shared<const model::SegmentLayout>(LOCKSTEP_TRY(model::lay_out(tensors)));
  out.component.segment_bytes = out.layout->size;
  return out;
}

Result<model::Kind> kind_of(const fs::path& folder) {
  if (fs::exists(folder / "model_index.json")) {
    const std::string text = LOCKSTEP_TRY(real::read_file((folder / "model_index.json").string(), 1 << 20));
    const auto index = json::from_text<ModelIndex>(text);
    if (!index) return fail(ErrorCode::data_loss, cat("model_index.json: ", index.error().message));
    if (index->_class_name != "StableDiffusionXLPipeline") {
      return fail(ErrorCode::invalid_argument, cat("pipeline class ", shortened(index->_class_name),
                                                   " is not supported; StableDiffusionXLPipeline is"));
    }
    return model::Kind::sdxl;
  }
  if (fs::exists(folder / "config.json")) {
    const std::string text = LOCKSTEP_TRY(real::read_file((folder / "config.json").string(), 1 << 20));
    const auto config = json::from_text<ClassifierConfig>(text);
    if (!config) return fail(ErrorCode::data_loss, cat("config.json: ", config.error().message));
    const auto names = config->architectures.value_or(std::vector<std::string>{});
    if (std::ranges::any_of(names, [](const auto& each) { return each.ends_with("ForImageClassification"); })) {
      return model::Kind::safety_classifier;
    }
    return fail(ErrorCode::invalid_argument, "config.json names no image classifier");
  }
  return model::Kind::upscaler;
}

Status scan_into(const fs::path& folder, in::ScannedModel& out) {
  out.model.kind = LOCKSTEP_TRY(kind_of(folder));
  std::vector<std::pair<std::string, std::vector<std::string>>> parts;
  if (out.model.kind == model::Kind::sdxl) {
    std::vector<fs::path> folders;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(folder, error)) {
      if (entry.is_directory(error)) folders.push_back(entry.path());
    }
    std::ranges::sort(folders);
    for (const fs::path& each : folders) {
      auto weights = LOCKSTEP_TRY(weights_in(each));
      if (!weights.empty()) parts.emplace_back(each.filename().string(), std::move(weights));
    }
  } else {
    auto weights = LOCKSTEP_TRY(weights_in(folder));
    if (!weights.empty()) parts.emplace_back("model", std::move(weights));
  }
  if (parts.empty()) return fail(ErrorCode::not_found, "there is no safetensors file in it");
  for (const auto& [name, paths] : parts) {
    ScannedComponent scanned = LOCKSTEP_TRY(scan_component(name, paths));
    out.model.bytes += scanned.component.segment_bytes;
    out.model.components.push_back(std::move(scanned.component));
    out.layouts.push_back(std::move(scanned.layout));
  }
  return {};
}

}  // namespace

in::ModelsScanned scan_models(const std::string& folder) {
  in::ModelsScanned out;
  std::error_code error;
  std::vector<fs::path> folders;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    std::error_code ignored;
    if (entry.is_directory(ignored)) folders.push_back(entry.path());
  }
  if (error) out.problem = cat("the models folder ", folder, " cannot be read: ", error.message());
  std::ranges::sort(folders);
  for (const fs::path& each : folders) {
    const std::string name = each.filename().string();
    if (!is_plain_name(name)) continue;  // hidden and half-written folders
    in::ScannedModel scanned;
    scanned.model.model_id = ModelId(name);
    scanned.model.path = fs::absolute(each).string();
    const Status status = scan_into(each, scanned);
    if (status) {
      scanned.model.availability = model::Availability::available;
    } else {
      scanned.model.availability = model::Availability::broken;
      scanned.model.reason = status.error().message;
      scanned.model.bytes = {};
      scanned.model.components.clear();
      scanned.layouts.clear();
    }
    out.models.push_back(std::move(scanned));
  }
  return out;
}

Result<FilledSegment> fill_segment(const out::FillSegment& order) {
  FilledSegment out;
  const model::SegmentLayout& layout = *order.layout;
  const std::string name = cat("lockstep:", order.model_id.str(), "/", order.component);
  const auto fill = [&](std::span<std::uint8_t> segment) -> Status {
    Sha256 hash;
    auto piece = layout.pieces.begin();
    std::vector<std::uint8_t> between(1 << 16);
    for (std::uint32_t index = 0; index < order.files.size(); ++index) {
      const model::File& expected = order.files[index];
      const real::Fd file = LOCKSTEP_TRY(open_file(expected.path));
      const model::File now = facts_of(file.get(), expected.path);
      if (now.size != expected.size || now.modified_ns != expected.modified_ns) {
        return fail(ErrorCode::data_loss, cat(expected.path, " changed since it was registered (", now.size.value,
                                              " bytes now, ", expected.size.value, " then)"));
      }
      std::uint64_t at = 0;
      // What lies between the tensors (the header) is hashed only; tensors are read straight to their place.
      const auto hash_up_to = [&](std::uint64_t end) -> Status {
        while (at < end) {
          const auto chunk = std::span(between).first(std::min<std::uint64_t>(between.size(), end - at));
          LOCKSTEP_TRY_STATUS(read_at(file.get(), at, chunk, expected.path));
          hash.add(chunk);
          at += chunk.size();
        }
        return {};
      };
      for (; piece != layout.pieces.end() && piece->file == index; ++piece) {
        LOCKSTEP_TRY_STATUS(hash_up_to(piece->from));
        const auto target = segment.subspan(piece->to, piece->bytes);
        LOCKSTEP_TRY_STATUS(read_at(file.get(), at, target, expected.path));
        hash.add(target);
        at += piece->bytes;
      }
      LOCKSTEP_TRY_STATUS(hash_up_to(expected.size.value));
    }
    out.sha256 = hash.hex();
    const std::string header = model::segment_header(layout, order.model_id.str(), order.component, out.sha256);
    std::memcpy(segment.data(), header.data(), header.size());
    return {};
  };
  out.file = LOCKSTEP_TRY(real::make_sealed(name, layout.size, fill));
  return out;
}

}  // namespace lockstep::server
