#pragma once

// A commit: the puts and deletes of one decision under one rev, with the events it causes (design §2). It is the
// only way durable state changes, one journal record, and one frame to every stream.

#include <optional>
#include <string>
#include <vector>

#include <boost/describe.hpp>

#include "base/ids.h"
#include "base/result.h"
#include "base/units.h"
#include "events/json_write.h"

namespace lockstep {

/// One fact: `value` absent means the key is deleted.
struct FactChange {
  std::string table;
  std::string key;
  std::optional<RawJson> value;
};
BOOST_DESCRIBE_STRUCT(FactChange, (), (table, key, value))

/// type     an event type of §2 or a name of ours in the same style
/// subject  what it is about: a request, a model, a worker
/// session  the processing session whose work it tells of; absent: of none, or of the one that is its subject
struct CommitEvent {
  std::string type;
  std::string subject;
  RawJson body{"{}"};
  std::optional<std::string> session;
};
BOOST_DESCRIBE_STRUCT(CommitEvent, (), (type, subject, body, session))

struct Commit {
  Rev rev;  // given by the loop when it applies the commit
  WallTime time;
  std::vector<FactChange> changes;
  std::vector<CommitEvent> events;

  bool empty() const { return changes.empty() && events.empty(); }
};
BOOST_DESCRIBE_STRUCT(Commit, (), (rev, time, changes, events))

std::string encode(const Commit& commit);
/// data_loss when the text is not a commit.
Result<Commit> decode_commit(std::string_view text);

}  // namespace lockstep
