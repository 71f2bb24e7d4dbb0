#include "orchestrator/on_tuning.h"

#include "base/text.h"
#include "domains/inference/capabilities.h"
#include "domains/inference/tuning.h"
#include "orchestrator/set.h"

namespace lockstep {

namespace {

/// The model that the path names; empty when it is of another kind.
ModelId model_in(std::string_view path) {
  constexpr std::string_view before = "models/";
  constexpr std::string_view behind = "/config";
  if (!path.starts_with(before) || !path.ends_with(behind) || path.size() <= before.size() + behind.size()) return {};
  return ModelId(std::string(path.substr(before.size(), path.size() - before.size() - behind.size())));
}

Result<inference::Tuning> tuning_after(const Turn& turn, const in::Set& input, const ModelId& id) {
  const model::Model* model = turn.tables.model.models.find(id.str());
  if (model == nullptr) return fail(ErrorCode::not_found, cat("there is no model ", shortened(id.str())));
  const std::string kind = json::enum_name(model->kind);
  if (inference::capabilities_of(kind).inference_types.empty()) {
    return fail(ErrorCode::invalid_argument,
                cat("model ", id.str(), " is no image model but ", kind, "; nothing of it can be set"));
  }
  const auto named = LOCKSTEP_TRY(read_set<inference::Tuning>(input));
  const inference::Tuning before = inference::tuning_of(turn.tables.inference, id);
  const inference::Tuning after = input.whole ? named : inference::merged(before, named);
  LOCKSTEP_TRY_STATUS(inference::validate(after, turn.settings.accept.limits));
  return after;
}

}  // namespace

bool set_tuning(Turn& turn, const in::Set& input) {
  const ModelId id = model_in(input.path);
  if (id.empty()) return false;
  const auto after = tuning_after(turn, input, id);
  if (!after) {
    reply_error(turn, input.reply, after.error());
    return true;
  }
  turn.change.put(turn.tables.inference.tunings, id.str(), *after);
  turn.change.event("model_configured", id.str(), *after);
  turn.effect(out::Reply{input.reply, 200, json::to_text(*after)});
  return true;
}

std::optional<std::string> tuning_view_text(const Turn& turn, const std::string& path) {
  const ModelId id = model_in(path);
  if (id.empty() || !turn.tables.model.models.contains(id.str())) return std::nullopt;
  return json::to_text(inference::tuning_of(turn.tables.inference, id));
}

}  // namespace lockstep
