#include "domains/model/rules.h"

#include <algorithm>

#include "base/check.h"
#include "base/text.h"

namespace lockstep::model {

std::string residency_key(const ModelId& model, const WorkerId& worker) { return cat(worker.str(), "/", model.str()); }

Result<Model> usable(const Tables& tables, const ModelId& model) {
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
  return *row;
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

Residency after(Residency residency, ResidencyEvent event) {
  const auto next = residency_lifecycle.next(residency.state, event);
  LOCKSTEP_CHECK(next.has_value());
  residency.state = *next;
  return residency;
}

}  // namespace lockstep::model
