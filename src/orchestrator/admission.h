#pragma once

// When nothing new is accepted: nobody could do it, or RAM or the disk is nearly full. What was accepted goes on.

#include <string>

#include "orchestrator/turn.h"

namespace lockstep {

/// The room that is left for the journal and the outputs. Below settings.disk_low_water nothing new is accepted, until
/// there is a quarter more than that.
void on_data_disk(Turn& turn, const in::DataDisk& input);

/// Why nothing new is accepted, in a sentence for who asks; empty when it is.
std::string nothing_new_because(const Turn& turn);

}  // namespace lockstep
