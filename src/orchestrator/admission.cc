#include "orchestrator/admission.h"

#include "base/text.h"
#include "orchestrator/on_memory.h"
#include "orchestrator/starts.h"

namespace lockstep {

namespace {

struct DataDiskChanged {
  Bytes free;
  Bytes low_water;
  bool refuses_admissions = false;
};
BOOST_DESCRIBE_STRUCT(DataDiskChanged, (), (free, low_water, refuses_admissions))

std::string no_room_because(const Turn& turn) {
  if (!turn.live.disk_is_low) return "";
  return cat("the disk of the data directory has ", to_text(turn.live.data_disk->free), " left; below ",
             to_text(turn.settings.disk_low_water), " nothing new is accepted");
}

}  // namespace

void on_data_disk(Turn& turn, const in::DataDisk& input) {
  const Bytes low_water = turn.settings.disk_low_water;
  const bool was_low = turn.live.disk_is_low;
  const Bytes limit{was_low ? low_water.value + low_water.value / 4 : low_water.value};
  turn.live.data_disk = input;
  turn.live.disk_is_low = input.free < limit;
  if (turn.live.disk_is_low == was_low) return;
  turn.change.event("data_disk_changed", "data_dir", DataDiskChanged{input.free, low_water, !was_low});
  if (was_low) return turn.log(cat("the disk of the data directory has ", to_text(input.free), " left again"));
  turn.warn(cat(no_room_because(turn), "; what was accepted goes on"));
}

std::string nothing_new_because(const Turn& turn) {
  if (std::string nobody = nobody_works_because(turn); !nobody.empty()) return nobody;
  if (std::string full = no_admission_because(turn); !full.empty()) return full;
  return no_room_because(turn);
}

}  // namespace lockstep
