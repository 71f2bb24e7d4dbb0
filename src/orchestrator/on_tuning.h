#pragma once

// What people set for one model: "models/<id>/config" below /api/v1 (§1.3, §1.5).

#include <optional>
#include <string>

#include "orchestrator/turn.h"

namespace lockstep {

/// False when the path is not of this kind.
bool set_tuning(Turn& turn, const in::Set& input);

/// Nothing when the path is not of this kind, or names no model.
std::optional<std::string> tuning_view_text(const Turn& turn, const std::string& path);

}  // namespace lockstep
