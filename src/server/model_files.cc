#include "server/model_files.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <map>
#include <set>

#include "base/digest.h"
#include "base/text.h"
#include "domains/model/guess.h"
#include "domains/model/safetensors.h"
#include "env/real/blob_store.h"
#include "env/real/memory_file.h"
#include "events/json_read.h"
#include "server/model_configuration.h"

namespace lockstep::server {

namespace fs = std::filesystem;

namespace {

struct ModelIndex {
  std::string _class_name;
};
BOOST_DESCRIBE_STRUCT(ModelIndex, (), (_class_name))

struct FolderConfig {
  std::optional<std::vector<std::string>> architectures;
  std::optional<std::string> _class_name;
};
BOOST_DESCRIBE_STRUCT(FolderConfig, (), (architectures, _class_name))

/// lockstep.json in a model's folder, or <name>.lockstep.json beside its file: what people say of it.
struct Sidecar {
  std::optional<std::string> version;
  std::optional<model::Kind> kind;
  std::optional<std::string> architecture;
  std::optional<ModelId> base_model;
  std::optional<ModelId> refiner;
  std::optional<ModelId> vae;
  std::optional<std::vector<ModelId>> loras;
  std::optional<ModelId> configuration;
};
BOOST_DESCRIBE_STRUCT(Sidecar, (), (version, kind, architecture, base_model, refiner, vae, loras, configuration))

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

Status same_as_scanned(const model::File& now, const model::File& expected) {
  if (now.size == expected.size && now.modified_ns == expected.modified_ns) return {};
  return fail(ErrorCode::data_loss, cat(expected.path, " changed since it was registered (", now.size.value,
                                        " bytes now, ", expected.size.value, " then)"));
}

struct ScannedFile {
  model::File file;
  std::vector<model::Tensor> tensors;
  std::map<std::string, std::string> metadata;
};

Result<ScannedFile> scan_file(const std::string& path) {
  const real::Fd fd = LOCKSTEP_TRY(open_file(path));
  ScannedFile out{facts_of(fd.get(), path), {}, {}};
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
  out.metadata = model::safetensors_metadata(header);
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
  std::map<std::string, std::string> metadata;
  model::Guess guess;
};

Result<ScannedComponent> scan_component(const std::string& name, const std::vector<std::string>& paths,
                                        model::CacheDtype dtype) {
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
    out.metadata.merge(file.metadata);
  }
  out.component.dtypes.assign(dtypes.begin(), dtypes.end());
  std::vector<model::Tensor> all;
  for (const auto& each : tensors) all.insert(all.end(), each.begin(), each.end());
  out.guess = model::guess(all, out.metadata);
  out.layout = std::make_shared<const model::SegmentLayout>(LOCKSTEP_TRY(model::lay_out(tensors, dtype)));
  if (dtype != model::CacheDtype::as_is) out.component.dtype_in_cache = dtype;
  out.component.segment_bytes = out.layout->size;
  return out;
}

/// What a folder's own configuration says it is; unknown when it says nothing, and its tensors tell.
Result<model::Kind> kind_by_config(const fs::path& folder, model::Facts& facts) {
  if (fs::exists(folder / "model_index.json")) {
    const std::string text = LOCKSTEP_TRY(real::read_file((folder / "model_index.json").string(), 1 << 20));
    const auto index = json::from_text<ModelIndex>(text);
    if (!index) return fail(ErrorCode::data_loss, cat("model_index.json: ", index.error().message));
    facts.evidence.push_back(cat("model_index.json names ", shortened(index->_class_name)));
    facts.architecture = "sdxl";
    if (index->_class_name == "StableDiffusionXLPipeline") return model::Kind::sdxl;
    facts.architecture = "sdxl_refiner";
    if (index->_class_name == "StableDiffusionXLImg2ImgPipeline") return model::Kind::sdxl_refiner;
    facts.architecture.clear();
    return fail(ErrorCode::invalid_argument,
                cat("pipeline class ", shortened(index->_class_name),
                    " is not supported; StableDiffusionXLPipeline and", " StableDiffusionXLImg2ImgPipeline are"));
  }
  if (!fs::exists(folder / "config.json")) return model::Kind::unknown;
  const std::string text = LOCKSTEP_TRY(real::read_file((folder / "config.json").string(), 1 << 20));
  const auto config = json::from_text<FolderConfig>(text);
  if (!config) return fail(ErrorCode::data_loss, cat("config.json: ", config.error().message));
  if (config->_class_name == "AutoencoderKL") {
    facts.architecture = "autoencoder_kl";
    facts.evidence.emplace_back("config.json names AutoencoderKL");
    return model::Kind::vae;
  }
  for (const std::string& name : config->architectures.value_or(std::vector<std::string>{})) {
    if (!name.ends_with("ForImageClassification")) continue;
    facts.architecture = "image_classifier";
    facts.evidence.push_back(cat("config.json names ", shortened(name)));
    return model::Kind::safety_classifier;
  }
  return fail(ErrorCode::invalid_argument, "config.json names no image classifier and no AutoencoderKL");
}

Status read_sidecar(const fs::path& file, in::ScannedModel& out) {
  std::error_code missing;
  if (!fs::exists(file, missing)) return {};
  const std::string name = file.filename().string();
  const std::string text = LOCKSTEP_TRY(real::read_file(file.string(), 1 << 16));
  json::ReadNotes notes;
  const auto read = json::from_text<Sidecar>(text, &notes);
  if (!read)
    return fail(ErrorCode::invalid_argument, cat(name, ": ", read.error().pointer, ": ", read.error().message));
  if (notes.unknown_keys > 0) {
    return fail(ErrorCode::invalid_argument, cat(name, ": the key ", shortened(notes.first_unknown), " is unknown"));
  }
  model::Facts& facts = *out.model.facts;
  facts.version = read->version.value_or(facts.version);
  if (read->kind) out.model.kind = *read->kind;
  if (read->kind || read->architecture) facts.evidence.push_back(cat(name, " says so"));
  facts.architecture = read->architecture.value_or(facts.architecture);
  const auto need = [&](const char* role, const std::optional<ModelId>& id) {
    if (id) facts.depends_on.push_back({role, *id});
  };
  need("base", read->base_model);
  need("refiner", read->refiner);
  need("vae", read->vae);
  for (const ModelId& each : read->loras.value_or(std::vector<ModelId>{})) need("lora", each);
  need("configuration", read->configuration);
  for (const model::Dependency& each : facts.depends_on) {
    if (is_plain_name(each.model_id.str())) continue;
    return fail(ErrorCode::invalid_argument,
                cat(name, ": ", each.role, " is \"", shortened(each.model_id.str()), "\"; it must be a model's name"));
  }
  return {};
}

/// What changes when any file does: the same files give the same digits on every scan.
std::string generation_of(const model::Model& model) {
  std::string text;
  for (const model::Component& component : model.components) {
    for (const model::File& file : component.files)
      text += cat(file.path, " ", file.size.value, " ", file.modified_ns, ";");
  }
  return cat("g", sha256_hex(text).substr(0, 12));
}

void add_component(in::ScannedModel& out, ScannedComponent scanned) {
  out.model.bytes += scanned.component.segment_bytes;
  out.model.components.push_back(std::move(scanned.component));
  out.layouts.push_back(std::move(scanned.layout));
}

/// The kind by its tensors, unless something said it already.
Status take_guess(const ScannedComponent& scanned, in::ScannedModel& out) {
  model::Facts& facts = *out.model.facts;
  if (out.model.kind == model::Kind::unknown) out.model.kind = scanned.guess.kind;
  if (facts.architecture.empty()) facts.architecture = scanned.guess.architecture;
  facts.evidence.insert(facts.evidence.end(), scanned.guess.evidence.begin(), scanned.guess.evidence.end());
  if (facts.version.empty()) {
    const auto version = scanned.metadata.find("modelspec.version");
    if (version != scanned.metadata.end()) facts.version = shortened(version->second, 64);
  }
  const bool lora_without_base = out.model.kind == model::Kind::lora && facts.architecture.empty();
  if (out.model.kind == model::Kind::unknown || lora_without_base) {
    return fail(ErrorCode::invalid_argument, scanned.guess.problem);
  }
  return {};
}

Status scan_folder(const fs::path& folder, model::CacheDtype dtype, in::ScannedModel& out) {
  LOCKSTEP_TRY_STATUS(read_sidecar(folder / "lockstep.json", out));
  const model::Kind by_config = LOCKSTEP_TRY(kind_by_config(folder, *out.model.facts));
  if (by_config != model::Kind::unknown) out.model.kind = by_config;
  if (fs::exists(folder / "model_index.json")) {
    std::vector<fs::path> folders;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(folder, error)) {
      if (entry.is_directory(error)) folders.push_back(entry.path());
    }
    std::ranges::sort(folders);
    for (const fs::path& each : folders) {
      const auto weights = LOCKSTEP_TRY(weights_in(each));
      if (!weights.empty()) add_component(out, LOCKSTEP_TRY(scan_component(each.filename().string(), weights, dtype)));
    }
  } else {
    const auto weights = LOCKSTEP_TRY(weights_in(folder));
    if (!weights.empty()) {
      ScannedComponent scanned = LOCKSTEP_TRY(scan_component("model", weights, dtype));
      LOCKSTEP_TRY_STATUS(take_guess(scanned, out));
      const bool checkpoint = out.model.kind == model::Kind::sdxl || out.model.kind == model::Kind::sdxl_refiner;
      out.model.facts->single_file =
          checkpoint || (out.model.kind == model::Kind::vae && by_config == model::Kind::unknown);
      if (checkpoint) scanned.component.name = "checkpoint";
      add_component(out, std::move(scanned));
    }
  }
  if (out.model.components.empty()) return fail(ErrorCode::not_found, "there is no safetensors file in it");
  if (by_config == model::Kind::unknown) return {};  // nobody would read its other files
  auto configuration = LOCKSTEP_TRY(scan_configuration(folder, fs::exists(folder / "model_index.json")));
  if (configuration) {  // its bytes are the cache's alone: no device holds them
    out.model.components.push_back(std::move(configuration->component));
    out.layouts.push_back(std::move(configuration->layout));
  }
  return {};
}

Status scan_single_file(const fs::path& file, model::CacheDtype dtype, in::ScannedModel& out) {
  if (is_pickle(file)) {
    return fail(ErrorCode::invalid_argument,
                cat(file.string(), " is a pickle file; it can run code and is refused, use safetensors"));
  }
  LOCKSTEP_TRY_STATUS(read_sidecar(file.parent_path() / cat(out.model.model_id.str(), ".lockstep.json"), out));
  ScannedComponent scanned = LOCKSTEP_TRY(scan_component("model", {file.string()}, dtype));
  LOCKSTEP_TRY_STATUS(take_guess(scanned, out));
  const model::Kind kind = out.model.kind;
  if (kind == model::Kind::safety_classifier) {
    return fail(ErrorCode::invalid_argument, "an image classifier needs a folder with its config.json");
  }
  out.model.facts->single_file = kind != model::Kind::upscaler && kind != model::Kind::lora;
  if (kind == model::Kind::sdxl || kind == model::Kind::sdxl_refiner) scanned.component.name = "checkpoint";
  add_component(out, std::move(scanned));
  return {};
}

in::ScannedModel scan_one(const fs::path& path, const std::string& name, model::CacheDtype dtype) {
  in::ScannedModel out;
  out.model.model_id = ModelId(name);
  out.model.path = fs::absolute(path).string();
  out.model.facts.emplace();
  std::error_code ignored;
  const Status status =
      fs::is_directory(path, ignored) ? scan_folder(path, dtype, out) : scan_single_file(path, dtype, out);
  if (status) {
    out.model.availability = model::Availability::available;
    if (out.model.facts->version.empty()) out.model.facts->version = generation_of(out.model);
    return out;
  }
  out.model.availability = model::Availability::broken;
  out.model.reason = status.error().message;
  out.model.bytes = {};
  out.model.components.clear();
  out.layouts.clear();
  return out;
}

/// The newest time of the file, or of anything in the folder.
fs::file_time_type last_written(const fs::path& path) {
  std::error_code error;
  fs::file_time_type newest = fs::last_write_time(path, error);
  for (const auto& entry : fs::recursive_directory_iterator(path, error)) {
    std::error_code ignored;
    newest = std::max(newest, fs::last_write_time(entry.path(), ignored));
  }
  return newest;
}

}  // namespace

in::ScannedModel scan_model(const std::string& path, const std::string& name) {
  return scan_one(path, name, model::CacheDtype::as_is);
}

Result<std::string> hash_files(const std::vector<model::File>& files) {
  Sha256 hash;
  std::vector<std::uint8_t> chunk(1 << 20);
  for (const model::File& expected : files) {
    const real::Fd file = LOCKSTEP_TRY(open_file(expected.path));
    LOCKSTEP_TRY_STATUS(same_as_scanned(facts_of(file.get(), expected.path), expected));
    for (std::uint64_t at = 0; at < expected.size.value;) {
      const auto piece = std::span(chunk).first(std::min<std::uint64_t>(chunk.size(), expected.size.value - at));
      LOCKSTEP_TRY_STATUS(read_at(file.get(), at, piece, expected.path));
      hash.add(piece);
      at += piece.size();
    }
  }
  return hash.hex();
}

in::ModelsScanned scan_models(const std::string& folder, Nanos settled, model::CacheDtype dtype) {
  in::ModelsScanned out;
  std::error_code error;
  std::map<std::string, std::vector<fs::path>> places;  // by model name
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    std::error_code ignored;
    const fs::path& path = entry.path();
    const bool is_folder = entry.is_directory(ignored);
    const bool is_weights = !is_folder && (path.extension() == ".safetensors" || is_pickle(path));
    if (!is_folder && !is_weights) continue;
    const std::string name = is_folder ? path.filename().string() : path.stem().string();
    if (is_plain_name(name)) places[name].push_back(path);  // the others are hidden, or half-written
  }
  if (error) out.problem = cat("the models folder ", folder, " cannot be read: ", error.message());
  for (auto& [name, paths] : places) {
    std::ranges::sort(paths);
    in::ScannedModel scanned = scan_one(paths.front(), name, dtype);
    if (paths.size() > 1) {
      scanned.model.availability = model::Availability::broken;
      scanned.model.reason = cat("the name stands for ", paths[0].filename().string(), " and for ",
                                 paths[1].filename().string(), "; rename one of them");
      scanned.model.bytes = {};
      scanned.model.components.clear();
      scanned.layouts.clear();
    }
    const auto age = fs::file_time_type::clock::now() - last_written(paths.front());
    if (scanned.model.availability == model::Availability::broken && age < std::chrono::nanoseconds(settled)) {
      out.unsettled.push_back(scanned.model.model_id);
      continue;
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
      LOCKSTEP_TRY_STATUS(same_as_scanned(facts_of(file.get(), expected.path), expected));
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
        const auto target = segment.subspan(piece->to, piece->bytes_in_cache);
        if (piece->dtype == piece->dtype_in_cache) {
          LOCKSTEP_TRY_STATUS(read_at(file.get(), at, target, expected.path));
          hash.add(target);
          at += piece->bytes;
          continue;
        }
        // In chunks of whole elements, so that a large tensor needs no second copy of its size.
        const std::uint64_t width = model::float_width(piece->dtype);
        const std::uint64_t width_in_cache = model::float_width(piece->dtype_in_cache);
        for (std::uint64_t done = 0; done < piece->bytes;) {
          const auto chunk = std::span(between).first(std::min<std::uint64_t>(between.size(), piece->bytes - done));
          LOCKSTEP_TRY_STATUS(read_at(file.get(), at, chunk, expected.path));
          hash.add(chunk);
          model::convert(chunk, piece->dtype,
                         target.subspan(done / width * width_in_cache, chunk.size() / width * width_in_cache),
                         piece->dtype_in_cache);
          done += chunk.size();
          at += chunk.size();
        }
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
