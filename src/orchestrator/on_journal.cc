// The journal as people keep it: snapshots and copies that they ask for. The disk is the driver's; that they are asked
// for here gives them what every other command has, an answer under a key.

#include "orchestrator/turn.h"

namespace lockstep {

void on_keep_journal(Turn& turn, const in::KeepJournal& input) {
  turn.effect(out::KeepJournal{input.reply, input.file});
}

void on_journal_kept(Turn& turn, const in::JournalKept& input) {
  if (!input.answer) return reply_error(turn, input.reply, input.answer.error());
  turn.effect(out::Reply{input.reply, 200, *input.answer});
}

}  // namespace lockstep
