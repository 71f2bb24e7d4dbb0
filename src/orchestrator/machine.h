#pragma once

// The orchestrator as a pure machine: step(input) -> at most one commit, and effects. runtime/loop.h drives it; the
// server and the simulator differ only in what carries the effects out. orchestrator/step.cc is the main path.

#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "journal/store.h"
#include "operations/tables.h"
#include "orchestrator/effect.h"
#include "orchestrator/input.h"
#include "orchestrator/live.h"
#include "orchestrator/settings.h"
#include "runtime/plan.h"

namespace lockstep {

class Orchestrator {
 public:
  using Input = lockstep::Input;
  using Effect = lockstep::Effect;

  explicit Orchestrator(Settings settings);

  /// Takes one input. The plan's commit is not applied yet.
  Plan<Effect> step(const Input& input);
  /// One further decision that the state now asks for (dispatch, load, restart, answer), or an empty plan.
  Plan<Effect> settle(const Input& input);
  /// The only way durable state changes. A commit of ours that cannot be applied is a defect.
  void apply(const Commit& commit);

  /// Recovery, before the first step: the snapshot's rows, then what the records after it leave of each row, by the
  /// same apply as in life. orchestrator/recover.cc.
  /// Returns the last position; data_loss when a row or a record cannot be read.
  Result<Lsn> recover(const Recovered& recovered);

  /// For the incremental snapshot (runtime/upkeep.h): what changed since the last one is in it from here on.
  void begin_snapshot();
  /// The next of its rows, as they are now: until there are `rows_max` of them, or `bytes_max` bytes.
  std::vector<SnapshotRow> take_snapshot_rows(std::size_t rows_max, std::size_t bytes_max);
  std::size_t snapshot_rows_left() const { return unsaved_.size(); }

  const Tables& tables() const { return tables_; }
  const Live& live() const { return live_; }
  Rev rev() const { return live_.rev; }
  /// Equal at equal revs on every replay.
  std::string digest() const { return digest_of(live_.rev, dump(tables_)); }

 private:
  /// now: of the input that is decided; absent while a journal is replayed.
  Status change(const Commit& commit, std::optional<Nanos> now);
  Status restore(const std::string& table, const std::string& key, std::optional<RawJson> value, Rev rev);

  Settings settings_;
  Tables tables_;
  Live live_;
  Nanos now_ = 0;  // of the newest input
  std::set<std::pair<std::string, std::string>> changed_;  // since the last snapshot began
  std::set<std::pair<std::string, std::string>> unsaved_;  // of the snapshot that is being taken
};

}  // namespace lockstep
