#include "domains/model/rules.h"

#include <algorithm>

#include "base/check.h"
#include "base/text.h"
#include "domains/model/configuration.h"

namespace lockstep::model {

std::string residency_key(const ModelId& model, const WorkerId& worker) { return cat(worker.str(), "/", model.str()); }

Result<const Model*> usable(const Tables& tables, const ModelId& model) {
  const Model* row = tables.models.find(model.str());
  if (row == nullptr) {
    std::string names;
    for (const auto& [id, entry] : tables.models.entries()) names += cat(names.empty() ? "" : ", ", id);
    return fail(ErrorCode::not_found, cat("there is no model \"", shortened(model.str()),
                                          "\"; registered: ", names.empty() ? "none" : names));
  }
  if (row->availability != Availability::available) {
    return fail(ErrorCode::data_loss, cat("model ", model.str(), " cannot be used: ", row->reason));
  }
  if (row->facts && row->facts->single_file) LOCKSTEP_TRY(configuration_of(tables, *row));
  return row;
}

namespace {

std::string architecture_of(const Model& model) {
  if (model.facts && !model.facts->architecture.empty()) return model.facts->architecture;
  return json::enum_name(model.kind);
}

bool has_configuration(const Model& model) {
  return model.availability == Availability::available && !(model.facts && model.facts->single_file);
}

/// Which kind gives a single file its configuration: every SDXL folder has a VAE's too.
Kind configuration_kind(Kind kind) { return kind == Kind::vae ? Kind::sdxl : kind; }

}  // namespace

std::string unfit_because(const Model& model, const std::string& role, const Model& other) {
  const auto is = [&](Kind kind) { return other.kind == kind; };
  const std::string what = cat(other.model_id.str(), " is ", json::enum_name(other.kind));
  if (role == "lora") {
    if (!is(Kind::lora)) return cat(what, ", no lora");
    if (architecture_of(other) == architecture_of(model)) return "";
    return cat("lora ", other.model_id.str(), " is for ", architecture_of(other), ", ", model.model_id.str(), " is ",
               architecture_of(model));
  }
  if (role == "base" && model.kind == Kind::lora) {
    const std::string reversed = unfit_because(other, "lora", model);
    return reversed;
  }
  if (role == "base") return is(Kind::sdxl) ? "" : cat(what, ", no base model");
  if (role == "refiner") return is(Kind::sdxl_refiner) ? "" : cat(what, ", no refiner");
  if (role == "vae") return is(Kind::vae) ? "" : cat(what, ", no vae");
  if (!has_configuration(other)) return cat(other.model_id.str(), " has no configuration of its own");
  return is(configuration_kind(model.kind)) ? "" : cat(what, ", of another architecture");
}

Result<const Model*> configuration_of(const Tables& tables, const Model& model) {
  if (!model.facts || !model.facts->single_file) return &model;
  for (const char* role : {"configuration", "base"}) {
    for (const Dependency& each : model.facts->depends_on) {
      if (each.role != role) continue;
      const Model* named = tables.models.find(each.model_id.str());
      if (named != nullptr && unfit_because(model, "configuration", *named).empty()) return named;
      if (each.role != "configuration") continue;
      return fail(ErrorCode::not_found,
                  cat("model ", model.model_id.str(), " takes its configuration from ", each.model_id.str(), ", which ",
                      named == nullptr ? std::string("is not registered")
                                       : cat("cannot be: ", unfit_because(model, "configuration", *named))));
    }
  }
  for (const auto& [id, entry] : tables.models.entries()) {
    if (unfit_because(model, "configuration", entry.row).empty()) return &entry.row;
  }
  return fail(
      ErrorCode::not_found,
      cat("model ", model.model_id.str(), " is a single file without configuration and tokenizers; a folder of a ",
          json::enum_name(configuration_kind(model.kind)), " model in the models folder would give them"));
}

std::vector<Part> parts_of(const Tables& tables, const Model& model) {
  std::vector<Part> out;
  for (const Component& each : model.components) out.push_back({model.model_id, each});
  const auto lender = configuration_of(tables, model);
  if (!lender || (*lender)->model_id == model.model_id) return out;
  for (const Component& each : (*lender)->components) {
    if (!is_weights(each)) out.push_back({(*lender)->model_id, each});
  }
  return out;
}

Bytes bytes_in_cache(const Tables& tables, const Model& model) {
  Bytes sum;
  for (const Part& each : parts_of(tables, model)) sum += each.component.segment_bytes;
  return sum;
}

std::vector<Need> needs_of(const Tables& tables, const Model& model) {
  std::vector<Need> out;
  if (!model.facts) return out;
  for (const Dependency& each : model.facts->depends_on) {
    const Model* other = tables.models.find(each.model_id.str());
    Need need{each.role, each.model_id, "available", ""};
    if (other == nullptr) {
      need.state = "missing";
      need.problem = cat("there is no model ", each.model_id.str());
    } else if (other->availability != Availability::available) {
      need.state = "broken";
      need.problem = other->reason;
    } else if (std::string why = unfit_because(model, each.role, *other); !why.empty()) {
      need.state = "incompatible";
      need.problem = std::move(why);
    }
    out.push_back(std::move(need));
  }
  const bool named = std::ranges::any_of(out, [](const Need& each) { return each.role == "configuration"; });
  if (!model.facts->single_file || named) return out;
  const auto configuration = configuration_of(tables, model);
  out.push_back(configuration ? Need{"configuration", (*configuration)->model_id, "available", ""}
                              : Need{"configuration", {}, "missing", configuration.error().message});
  return out;
}

ModelId first_of_kind(const Tables& tables, Kind kind) {
  ModelId single;
  for (const auto& [id, entry] : tables.models.entries()) {
    if (entry.row.kind != kind || !usable(tables, entry.row.model_id)) continue;
    if (!entry.row.facts || !entry.row.facts->single_file) return entry.row.model_id;
    if (single.empty()) single = entry.row.model_id;
  }
  return single;  // it borrows the configuration of another: that one goes first
}

const Residency* residency(const Tables& tables, const ModelId& model, const WorkerId& worker) {
  return tables.residencies.find(residency_key(model, worker));
}

Model with_known_digests(Model fresh, const Model* known) {
  if (known == nullptr) return fresh;
  const auto same_file = [](const File& a, const File& b) {
    return a.path == b.path && a.size == b.size && a.modified_ns == b.modified_ns;
  };
  for (Component& component : fresh.components) {
    const auto old = std::ranges::find(known->components, component.name, &Component::name);
    if (old != known->components.end() && std::ranges::equal(component.files, old->files, same_file)) {
      component.sha256 = old->sha256;
    }
  }
  return fresh;
}

Usage usage_of(const Tables& tables, const ModelId& model) {
  const Usage* known = tables.usages.find(model.str());
  return known == nullptr ? Usage{} : *known;
}

Usage loaded_once_more(Usage usage, WallTime now) {
  ++usage.loads;
  usage.last_loaded = now;
  return usage;
}

Usage used_once_more(Usage usage, WallTime now) {
  ++usage.uses;
  usage.last_used = now;
  return usage;
}

Residency after(Residency residency, ResidencyEvent event) {
  const auto next = residency_lifecycle.next(residency.state, event);
  LOCKSTEP_CHECK(next.has_value());
  residency.state = *next;
  return residency;
}

}  // namespace lockstep::model
