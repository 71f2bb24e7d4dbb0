/*
 * Two-phase commit with epochs, incarnations and tombstones (§3.5; docs/decisions/0006), as Promela for Spin.
 *
 * Words are those of the code. Each transition says which function it stands for; the table of all of them, and what
 * is left out, is docs/decisions/0060-a-formal-model-of-commit.md. tools/model/check.sh runs every configuration.
 *
 * One orchestrator with a durable journal, N volatile workers, one load after another that needs all N of them. The
 * code has one worker in a load (N = 1); two and three are what §3.5 asks of a commit, and show which rules rest on
 * there being one. What a side does with one input is one atomic step, as in the code: crashes fall between any two.
 *
 * Nothing here has a time. A timer is a choice that may be taken at any moment, so no deadline is assumed to be long
 * enough. Faults have budgets; each step uses one up or brings a message nearer to its end, so every run ends, and
 * liveness is a sentence about where it ends.
 *
 *   N          workers in a transaction, 1 to 3
 *   TX         transactions that are begun
 *   CRASHES    of the orchestrator, in recovery too       DEATHS   of workers, by themselves or given up
 *   CUTS       of links                                   LATE     ends of a link whose bytes arrive nevertheless
 *   VETOES     of participants
 *   AS_CODE    come_back() leaves intents alone, as on_join.cc does; sound for N = 1 only
 *   LIVENESS   check the formula `decided` instead of the assertion at the end
 *   BROKEN_x   one rule is left out; the checker must find it
 */

#ifndef N
#define N 2
#endif
#ifndef TX
#define TX 2
#endif
#ifndef CRASHES
#define CRASHES 1
#endif
#ifndef DEATHS
#define DEATHS 1
#endif
#ifndef CUTS
#define CUTS 1
#endif
#ifndef LATE
#define LATE 1
#endif
#ifndef VETOES
#define VETOES 1
#endif

#define BIT(n) (1 << (n))
#define ALL_WORKERS (BIT(N) - 1)
#define NO_LINK 255
#define FRAMES 10                 /* on one way, late ones included; an assertion at each send says that it is enough */
#define HELD (2 * N * TX + 4 * N) /* effects that wait for the disk; the same */

mtype = {
  hello, welcome, transaction_prepare, transaction_vote, transaction_commit, transaction_abort, transaction_ack,
  spawn_worker, kill_worker
};

/* A frame: type, epoch, incarnation, link, transaction, and one value more.
 *   hello              epoch: Rejoin.last_epoch; transaction: mask of what is promised; more: of what is committed
 *   transaction_vote   more: 1 is vote_commit, 0 is vote_abort
 * Frames of different types may overtake each other. The code's lanes keep the order within one operation
 * (src/propagation/lanes.h), so this is more than happens there; tombstones must hold without the lanes. */
chan to_worker[N] = [FRAMES] of { mtype, byte, byte, byte, byte, byte };
chan to_orchestrator[N] = [FRAMES] of { mtype, byte, byte, byte, byte, byte };

/* What the journal holds: survives everything. Rows are bits of a mask, by transaction. */
byte journal_epoch;
byte journal_incarnation[N];
bool journal_here[N];        /* WorkerRecord.state != gone */
byte journal_decisions[N];   /* transactions.decisions: a row for each branch until it is acknowledged or lost */
byte journal_residencies[N]; /* model.residencies with memory.allocations: what the branch did to the ledger */

/* The same tables as the orchestrator has applied them; ahead of the journal while `dirty`. */
byte epoch;
byte incarnation[N];
bool here[N];
byte decisions[N];
byte residencies[N];
bool dirty;

/* Live: gone with the process. */
bool up;
bool listening;
byte transactions_made;    /* the code's ids are (epoch, counter), so a number never comes again: transaction_id() */
byte intent;               /* the transaction that prepares; 0: none (Live::intents) */
byte intent_votes;         /* mask of workers */
byte intent_incarnation[N];
byte link_of[N];           /* WorkerLive::link */
bool link_open[N];         /* WorkerLive::link_open */
bool known[N];             /* there is a process to speak of: it was spawned, or the journal names it */
bool kill_sent[N];         /* WorkerLive::kill_sent */
chan held = [HELD] of { mtype, byte, byte, byte, byte }; /* type, worker, incarnation, link, transaction */
byte releasable;           /* that many of them wait for nothing any more */

/* Links. The code counts them in one process (Driver::links_made_), the model anew for each incarnation as well: it
 * must be the header of a frame that tells what a frame of an earlier life is worth. */
byte links_made[N];
bool connected[N]; /* the two ends of the newest link */

/* A worker: gone with its process (worker::Machine, Participant). */
bool alive[N];
byte own_incarnation[N];
byte own_epoch[N];
byte own_link[N];
bool own_open[N];
bool welcomed[N];
byte promised[N];
byte committed[N];
byte tombstones[N];

/* Budgets of faults. */
byte crashes = CRASHES;
byte deaths = DEATHS;
byte cuts = CUTS;
byte late = LATE;
byte vetoes = VETOES;

/* What really happened, for the assertions. No transition reads it. */
byte begun;            /* transactions */
byte deciding;         /* its decision waits for the sync */
byte ever_committed;   /* its decision was durable */
byte ever_aborted;     /* it was decided so, or presumed so */
byte branch_committed; /* some participant has applied the commit */
byte branch_aborted;   /* some participant has applied the abort */
byte told_abort[N];    /* this incarnation was told of it */
byte released[N];      /* this incarnation took its promise back */
byte voter[N];         /* the incarnation whose vote_commit is counted */

/* Scratch of one atomic step, 0 between two: f_ the frame at hand, x_ one that is moved. */
mtype f_type, x_type;
byte f_epoch, f_incarnation, f_link, f_tx, f_more;
byte x_epoch, x_incarnation, x_link, x_tx, x_more, x_worker, x_count;
byte each, told, one;

inline step_ends() {
  d_step {
    f_type = 0;
    x_type = 0;
    f_epoch = 0;
    f_incarnation = 0;
    f_link = 0;
    f_tx = 0;
    f_more = 0;
    x_epoch = 0;
    x_incarnation = 0;
    x_link = 0;
    x_tx = 0;
    x_more = 0;
    x_worker = 0;
    x_count = 0;
    each = 0;
    told = 0;
    one = 0
  }
}

#ifdef BROKEN_INCARNATION
#define OUR_INCARNATION(mine) true
#else
#define OUR_INCARNATION(mine) (f_incarnation == (mine))
#endif
#ifdef BROKEN_EPOCH
#define OUR_EPOCH(mine) true
#else
#define OUR_EPOCH(mine) (f_epoch == (mine))
#endif

#define IN_FLIGHT(type) type, f_epoch, f_incarnation, f_link, f_tx, f_more
#define MOVED x_type, x_epoch, x_incarnation, x_link, x_tx, x_more

/* ---- what steps are made of -------------------------------------------------------------------------------------- */

/* S3: an outcome never changes. Whoever aborts a transaction, or presumes that it was aborted, comes here. */
inline decide_abort(tx) {
  assert(!((ever_committed | deciding) & BIT(tx)));
  ever_aborted = ever_aborted | BIT(tx)
}

/* Driver::carry_out(out::SendFrame): over a link that broke, or that is not the newest, it is lost. */
inline carry_frame(type, w, inc, link, tx) {
  if
  :: connected[w] && link == links_made[w] ->
    assert(nfull(to_worker[w]));
    to_worker[w]!type(epoch, inc, link, tx, 0)
  :: else
  fi
}

/* Loop::take: an effect waits for the newest commit that was applied before it. A frame that waits for nothing leaves
 * at once: that a crash comes first is the same as that the crash takes the link and the frame in it. */
inline effect(type, w, tx) {
  if
  :: !dirty && len(held) == 0 && type != spawn_worker && type != kill_worker ->
    carry_frame(type, w, incarnation[w], link_of[w], tx)
  :: else ->
    assert(nfull(held));
    held!type(w, incarnation[w], link_of[w], tx);
#ifndef BROKEN_FORCED_WRITE
    if
    :: !dirty -> releasable = len(held)
    :: else
    fi
#else
    releasable = len(held)
#endif
  fi
}

/* A side gives a link up: what was in it is lost, or arrives nevertheless, LATE times. Frames from link `keep` on are
 * of newer ones. A hello or a welcome is never late: it belongs to the socket on which it opens a link. */
inline forget_bytes(channel, keep) {
  if
  :: late > 0 && len(channel) > 0 ->
    late--;
    x_count = 1
  :: x_count = 0
  fi;
  d_step {
    x_worker = len(channel);
    do
    :: x_worker > 0 ->
      x_worker--;
      channel?MOVED;
      if
      :: x_link >= keep || (x_count == 1 && x_type != hello && x_type != welcome) -> channel!MOVED
      :: else
      fi
    :: else -> break
    od;
    x_link = 0
  }
}

/* To everybody who can be reached. The code has one to tell. */
inline tell_all(type, tx) {
  told = 0;
  do
  :: told < N ->
    if
    :: link_open[told] -> effect(type, told, tx)
    :: else
    fi;
    told++
  :: else -> break
  od
}

inline forget_intent() {
  intent = 0;
  intent_votes = 0;
  each = 0;
  do
  :: each < N ->
    voter[each] = 0;
    intent_incarnation[each] = 0;
    each++
  :: else -> break
  od
}

/* two_phase_commit: preparing -> aborted. Nothing is written (presumed abort). */
inline abort_intent() {
  decide_abort(intent);
  one = intent;
  forget_intent();
  tell_all(transaction_abort, one)
}

/* drop_intents() of on_worker.cc: preparing + participant_lost -> aborted. */
inline drop_intents() {
#ifndef BROKEN_DROP_INTENTS
  if
  :: intent != 0 -> abort_intent()
  :: else
  fi
#else
  skip
#endif
}

/* end_worker() of on_worker.cc: its end is reported as any other is. */
inline end_worker(w) {
  if
  :: !kill_sent[w] ->
    kill_sent[w] = true;
    effect(kill_worker, w, 0)
  :: else
  fi
}

/* end_transaction() of model_load.cc: the branch knows its decision, so the row may go. */
inline end_transaction(w, mask) {
  if
  :: (decisions[w] & (mask)) != 0 ->
    decisions[w] = decisions[w] & ~(mask);
    dirty = true
  :: else
  fi
}

/* A process ends, and all that it promised with it. */
inline die(w) {
  alive[w] = false;
  connected[w] = false;
  own_open[w] = false;
  own_link[w] = 0;
  own_epoch[w] = 0;
  own_incarnation[w] = 0;
  welcomed[w] = false;
  promised[w] = 0;
  committed[w] = 0;
  tombstones[w] = 0;
  told_abort[w] = 0;
  released[w] = 0
}

/* on_worker_spawned(), the first hello and its welcome: no transaction is about this incarnation yet. */
inline begin_incarnation(w) {
  d_step {
    alive[w] = true;
    own_incarnation[w] = incarnation[w];
    own_epoch[w] = epoch;
    links_made[w] = 1;
    connected[w] = true;
    own_link[w] = 1;
    own_open[w] = true;
    welcomed[w] = true;
    known[w] = true;
    link_of[w] = 1;
    link_open[w] = true
  }
}

/* ---- the orchestrator -------------------------------------------------------------------------------------------- */

/* The process ends between any two steps. What was not synced is lost, and so is everything live. From now on what was
 * begun and has no durable decision is aborted: that there is no row is the decision. */
inline crash() {
  crashes--;
  d_step {
    ever_aborted = ever_aborted | (begun & ~ever_committed);
    deciding = 0;
    assert(!(branch_committed & ever_aborted)); /* S4: nobody was told of a commit that is lost now */
    up = false;
    listening = false;
    epoch = 0;
    dirty = false;
    releasable = 0;
#ifdef BROKEN_TRANSACTION_ID
    transactions_made = 0;
#endif
    do
    :: len(held) > 0 -> held?x_type, x_worker, x_incarnation, x_link, x_tx
    :: else -> break
    od;
    forget_intent();
    each = 0;
    do
    :: each < N ->
      incarnation[each] = 0;
      here[each] = false;
      decisions[each] = 0;
      residencies[each] = 0;
      link_of[each] = 0;
      link_open[each] = false;
      known[each] = false;
      kill_sent[each] = false;
      links_made[each] = 0;
      connected[each] = false;
      each++
    :: else -> break
    od;
    each = 0
  };
  one = 0;
  do
  :: one < N ->
    forget_bytes(to_orchestrator[one], NO_LINK);
    one++
  :: else -> break
  od
}

/* Orchestrator::recover(), then on_started() of on_worker.cc: replay, then a new epoch, durable before out::Listen
 * leaves. The workers of the journal are awaited. */
inline on_started() {
  d_step {
    up = true;
    epoch = journal_epoch + 1;
    dirty = true;
    each = 0;
    do
    :: each < N ->
      incarnation[each] = journal_incarnation[each];
      here[each] = journal_here[each];
      known[each] = journal_here[each];
#ifndef BROKEN_REPLAY
      decisions[each] = journal_decisions[each];
#endif
      residencies[each] = journal_residencies[each];
      each++
    :: else -> break
    od;
    each = 0
  }
}

/* Loop::take_batch, the sync, Loop::durable: all that was applied becomes durable, as one append. */
inline sync() {
  d_step {
    dirty = false;
    releasable = len(held);
    listening = true; /* the first sync of a life is the epoch's */
    journal_epoch = epoch;
    each = 0;
    do
    :: each < N ->
      journal_incarnation[each] = incarnation[each];
      journal_here[each] = here[each];
      journal_decisions[each] = decisions[each];
      journal_residencies[each] = residencies[each];
      each++
    :: else -> break
    od;
    ever_committed = ever_committed | deciding;
    deciding = 0;
    assert(!(ever_committed & ever_aborted)) /* S3 */
  }
}

/* Loop::next_effect and Driver::carry_out: one at a time, in order. */
inline next_effect() {
  held?x_type, x_worker, x_incarnation, x_link, x_tx;
  releasable--;
  if
  :: x_type == spawn_worker ->
    one = x_worker;
    assert(!alive[one]); /* S8: no successor beside a process that lives */
    forget_bytes(to_worker[one], NO_LINK);
    forget_bytes(to_orchestrator[one], NO_LINK);
    begin_incarnation(one)
  :: x_type == kill_worker ->
    if
    :: alive[x_worker] && own_incarnation[x_worker] == x_incarnation -> die(x_worker)
    :: else
    fi
  :: else ->
    carry_frame(x_type, x_worker, x_incarnation, x_link, x_tx);
#ifdef BROKEN_END
    if
    :: x_type == transaction_commit -> end_transaction(x_worker, BIT(x_tx))
    :: else
    fi
#endif
  fi
}

/* is_idle() of schedule.cc, and device::may_reserve(): one load at a time on a device. */
#define USABLE(w) (here[w] && known[w] && link_open[w] && !kill_sent[w] && decisions[w] == 0)
#if N == 1
#define ALL_USABLE USABLE(0)
#elif N == 2
#define ALL_USABLE (USABLE(0) && USABLE(1))
#else
#define ALL_USABLE (USABLE(0) && USABLE(1) && USABLE(2))
#endif
#define MAY_LOAD (listening && intent == 0 && transactions_made < TX && ALL_USABLE)

/* load() of schedule.cc with prepare_load() of model_load.cc. The in-process services vote here, before anybody is
 * asked; when one refuses, nothing begins. Then an intent in memory, a prepare to each, a timer. Nothing is written. */
inline load() {
  transactions_made++;
  forget_intent();
  intent = transactions_made;
  begun = begun | BIT(intent);
  each = 0;
  do
  :: each < N ->
    intent_incarnation[each] = incarnation[each];
    each++
  :: else -> break
  od;
  tell_all(transaction_prepare, intent)
}

/* decide_load() of model_load.cc: preparing -> committing. The decision and all that the load holds are one commit;
 * what the workers are told waits for it. */
inline decide_load() {
  each = 0;
  do
  :: each < N ->
    /* S2: a yes of every branch, of the incarnation that was asked, which is the one that is registered. */
    assert(voter[each] == intent_incarnation[each] && voter[each] == incarnation[each] && here[each]);
    decisions[each] = decisions[each] | BIT(intent);
    residencies[each] = residencies[each] | BIT(intent);
    each++
  :: else -> break
  od;
  dirty = true;
  deciding = deciding | BIT(intent);
  one = intent;
  forget_intent();
  tell_all(transaction_commit, one)
}

/* on_vote() of on_frame.cc. */
inline on_vote(w) {
  if
  :: intent != f_tx && (decisions[w] & BIT(f_tx)) == 0 ->
    /* Unknown means aborted (presumed): the worker may forget its promise. The replay is over, so silence is final. */
#ifdef BROKEN_UNKNOWN
    effect(transaction_commit, w, f_tx)
#elif defined(BROKEN_SILENCE)
    skip
#else
    decide_abort(f_tx);
    effect(transaction_abort, w, f_tx)
#endif
  :: intent != f_tx && (decisions[w] & BIT(f_tx)) != 0 /* it was counted before */
  :: intent == f_tx && intent_incarnation[w] != incarnation[w] /* not_owner: refused and counted */
  :: intent == f_tx && intent_incarnation[w] == incarnation[w] ->
    if
    :: f_more == 0 -> abort_intent()
    :: else ->
      intent_votes = intent_votes | BIT(w);
      voter[w] = f_incarnation;
      if
      :: intent_votes == ALL_WORKERS -> decide_load()
      :: else
      fi
    fi
  fi
}

/* on_frame() of on_frame.cc: what is let through, and then dispatch(). */
inline on_frame(w) {
  if
  :: !here[w] || link_of[w] != f_link /* late bytes of a connection that was replaced, or of nobody */
  :: !OUR_INCARNATION(incarnation[w])
  :: !OUR_EPOCH(epoch)
  :: here[w] && link_of[w] == f_link && OUR_INCARNATION(incarnation[w]) && OUR_EPOCH(epoch) ->
    assert(f_incarnation == incarnation[w] && f_epoch == epoch); /* S6 */
    if
    :: f_type == transaction_vote -> on_vote(w)
    :: f_type == transaction_ack -> end_transaction(w, BIT(f_tx))
    fi
  fi
}

/* on_worker_dialed() of on_join.cc: may_return(), then come_back() with its Reunion. */
inline on_worker_dialed(w) {
  if
  :: !OUR_INCARNATION(incarnation[w]) || !here[w] || kill_sent[w] /* "incarnation is over" */
  :: link_of[w] > f_link /* "a newer connection of it is open" */
  :: link_of[w] <= f_link && OUR_INCARNATION(incarnation[w]) && here[w] && !kill_sent[w] ->
    assert(f_incarnation == incarnation[w] && here[w]); /* S6 */
    assert(f_epoch <= epoch);                           /* S6: no worker has seen more than this journal */
    if
#ifndef BROKEN_REUNION
    :: (f_tx & decisions[w]) != 0 ->
      /* Reunion::contradiction(), "the decision was lost": with the link. It stands; the worker is ended, its rows are
       * repaired, and nobody tells it the opposite of what was decided. */
      end_worker(w)
    :: (f_tx & decisions[w]) == 0 ->
#else
    :: true ->
#endif
      /* contradiction() finds nothing else: a frame leaves behind its row, so neither side can be ahead. */
      assert(!(f_more & ~residencies[w]));
      assert(!(residencies[w] & ~(f_more | f_tx)));
#if !defined(AS_CODE) && !defined(BROKEN_COME_BACK)
      /* The link of before is over, whether its end was seen or not, and the votes it brought count no more: settle()
       * is about to presume their abort. */
      drop_intents();
#endif
      link_of[w] = f_link;
      link_open[w] = true;
      effect(welcome, w, 0);
      end_transaction(w, f_more); /* settle_residencies() */
      one = 1;
      do
      :: one <= TX ->
        if
#ifndef BROKEN_SILENCE
        :: (f_tx & BIT(one)) != 0 ->
          /* Reunion::settle(): presumed; the replay is over, so silence is final. */
          decide_abort(one);
          effect(transaction_abort, w, one)
#endif
        :: else
        fi;
        one++
      :: else -> break
      od;
      forget_bytes(to_orchestrator[w], f_link) /* AcceptLink ends the connection that this one replaces */
    fi
  fi
}

/* on_link_closed() of on_worker.cc. The other end may have noticed long before, and may be back already. */
#define END_UNSEEN(w) (listening && link_open[w] && !(connected[w] && links_made[w] == link_of[w]))
inline on_link_closed(w) {
  link_open[w] = false;
  drop_intents();
  forget_bytes(to_orchestrator[w], link_of[w] + 1)
}

/* on_worker_gone() of on_worker.cc with worker_gone() of workflow.cc: the process handle, or the lock of an earlier
 * life (0008), proves the end. committing + participant_lost -> committed: the branch is lost, its rows are repaired,
 * and the decision stays. */
inline on_worker_gone(w) {
#ifdef BROKEN_UNCOMMIT
  one = 1;
  do
  :: one <= TX ->
    if
    :: (decisions[w] & BIT(one)) != 0 ->
      decide_abort(one);
      tell_all(transaction_abort, one)
    :: else
    fi;
    one++
  :: else -> break
  od;
#endif
  dirty = true;
  link_open[w] = false;
  drop_intents();
  here[w] = false;
  known[w] = false;
  kill_sent[w] = false;
  link_of[w] = 0;
  decisions[w] = 0;
  residencies[w] = 0
}

/* settle_workers() of on_worker.cc, register_incarnation(): the record is durable before there is a process. */
inline register_incarnation(w) {
  assert(!alive[w] && residencies[w] == 0 && decisions[w] == 0); /* S8 */
  incarnation[w] = incarnation[w] + 1;
  here[w] = true;
  dirty = true;
  effect(spawn_worker, w, 0)
}

#define INPUTS_OF(w)                                                                                                  \
  :: atomic { listening && nempty(to_orchestrator[w]) ->                                                              \
       to_orchestrator[w]?f_type, f_epoch, f_incarnation, f_link, f_tx, f_more;                                       \
       if                                                                                                             \
       :: f_type == hello -> on_worker_dialed(w)                                                                      \
       :: else -> on_frame(w)                                                                                         \
       fi;                                                                                                            \
       step_ends() }                                                                                                  \
  :: atomic { END_UNSEEN(w) -> on_link_closed(w); step_ends() }                                                       \
  :: atomic { listening && here[w] && known[w] && !alive[w] -> on_worker_gone(w); step_ends() }                       \
  :: atomic { listening && !here[w] -> register_incarnation(w); step_ends() }                                         \
  :: atomic { deaths > 0 && listening && here[w] && known[w] && !link_open[w] && !kill_sent[w] ->                     \
       deaths--;                                                                                                      \
       end_worker(w);                                                                                                 \
       step_ends() } /* on_timer(), "rejoin": it did not come back in time */

proctype Orchestrator() {
end:
  do
  :: atomic { !up -> on_started(); step_ends() }
  :: atomic { up && dirty -> sync(); step_ends() }
  :: atomic { up && releasable > 0 -> next_effect(); step_ends() }
  :: atomic { MAY_LOAD -> load(); step_ends() }
  :: atomic { listening && intent != 0 -> abort_intent(); step_ends() } /* on_timer(), "prepare" */
  :: atomic { up && crashes > 0 -> crash(); step_ends() }
  INPUTS_OF(0)
#if N > 1
  INPUTS_OF(1)
#endif
#if N > 2
  INPUTS_OF(2)
#endif
  od
}

/* ---- a worker ---------------------------------------------------------------------------------------------------- */

/* Machine::transmit: into the link, if it still leads anywhere. */
inline transmit(w, type, tx, more) {
  if
  :: connected[w] ->
    assert(nfull(to_orchestrator[w]));
    to_orchestrator[w]!type(own_epoch[w], own_incarnation[w], own_link[w], tx, more)
  :: else
  fi
}

/* Participant::prepare. Everything that can fail happens here: there may be a veto for any reason. */
inline prepare(w) {
  if
  :: ((promised[w] | committed[w]) & BIT(f_tx)) != 0 -> transmit(w, transaction_vote, f_tx, 1)
  :: ((promised[w] | committed[w]) & BIT(f_tx)) == 0 && (tombstones[w] & BIT(f_tx)) != 0 ->
    transmit(w, transaction_vote, f_tx, 0)
  :: ((promised[w] | committed[w] | tombstones[w]) & BIT(f_tx)) == 0 && vetoes > 0 ->
    vetoes--;
    transmit(w, transaction_vote, f_tx, 0)
  :: ((promised[w] | committed[w] | tombstones[w]) & BIT(f_tx)) == 0 ->
    assert(!(told_abort[w] & BIT(f_tx))); /* S5: after its abort a prepare never yields a yes */
    promised[w] = promised[w] | BIT(f_tx);
    transmit(w, transaction_vote, f_tx, 1)
  fi
}

/* Participant::commit: the promise becomes a holding; it cannot fail. */
inline commit(w) {
  if
  :: (committed[w] & BIT(f_tx)) != 0
  :: (committed[w] & BIT(f_tx)) == 0 ->
    assert(promised[w] & BIT(f_tx));                                /* by this incarnation, and not taken back */
    assert((ever_committed & BIT(f_tx)) && !(ever_aborted & BIT(f_tx))); /* S4: the row was durable first */
    branch_committed = branch_committed | BIT(f_tx);
    assert(!(branch_committed & branch_aborted)); /* S1 */
    promised[w] = promised[w] & ~BIT(f_tx);
    committed[w] = committed[w] | BIT(f_tx)
  fi;
  transmit(w, transaction_ack, f_tx, 0)
}

/* Participant::abort: takes the promise back and leaves a tombstone, also for what it never saw. */
inline abort(w) {
  if
  :: (committed[w] & BIT(f_tx)) != 0 -> assert(false) /* the code ignores it; nobody may have said it */
  :: (promised[w] & BIT(f_tx)) != 0 ->
    assert(!(released[w] & BIT(f_tx))); /* its bytes are given back once */
    released[w] = released[w] | BIT(f_tx);
    promised[w] = promised[w] & ~BIT(f_tx)
  :: else
  fi;
#ifndef BROKEN_TOMBSTONE
  tombstones[w] = tombstones[w] | BIT(f_tx);
#endif
  told_abort[w] = told_abort[w] | BIT(f_tx);
  branch_aborted = branch_aborted | BIT(f_tx);
  assert(!(branch_committed & branch_aborted)) /* S1 */
}

/* Machine::frame: of this incarnation, this epoch, this socket; or it changes nothing. Then dispatch(). */
inline frame(w) {
  if
  :: f_link != own_link[w] /* another socket's: nobody reads it */
  :: !OUR_INCARNATION(own_incarnation[w])
  :: !OUR_EPOCH(own_epoch[w]) && f_type != welcome
  :: f_link == own_link[w] && OUR_INCARNATION(own_incarnation[w]) && (OUR_EPOCH(own_epoch[w]) || f_type == welcome) ->
    assert(f_incarnation == own_incarnation[w]); /* S6 */
    assert(f_epoch == own_epoch[w] || (f_type == welcome && f_epoch > own_epoch[w]));
    if
    :: f_type == welcome ->
      own_epoch[w] = f_epoch;
      welcomed[w] = true
    :: f_type == transaction_prepare -> prepare(w)
    :: f_type == transaction_commit -> commit(w)
    :: f_type == transaction_abort -> abort(w)
    fi
  fi
}

#define FROM_ORCHESTRATOR(type)                                                                                       \
  :: atomic { own_open[w] && welcomed[w] && to_worker[w]??[IN_FLIGHT(type)] ->                                        \
       to_worker[w]??IN_FLIGHT(type);                                                                                 \
       f_type = type;                                                                                                 \
       frame(w);                                                                                                      \
       step_ends() }

proctype Worker(byte w) {
end:
  do
  FROM_ORCHESTRATOR(transaction_prepare)
  FROM_ORCHESTRATOR(transaction_commit)
  FROM_ORCHESTRATOR(transaction_abort)
  :: atomic { own_open[w] && !welcomed[w] && to_worker[w]??[IN_FLIGHT(welcome)] ->
       to_worker[w]??IN_FLIGHT(welcome);
       f_type = welcome;
       frame(w);
       step_ends() }
  :: atomic { own_open[w] && !connected[w] -> /* Machine::link_closed: what it holds stays */
       own_open[w] = false;
       welcomed[w] = false;
       own_link[w] = 0;
       forget_bytes(to_worker[w], NO_LINK);
       step_ends() }
  :: atomic { alive[w] && !own_open[w] && listening -> /* out::Dial, Machine::link_opened: a hello with the inventory */
       links_made[w] = links_made[w] + 1;
       connected[w] = true;
       own_link[w] = links_made[w];
       own_open[w] = true;
       transmit(w, hello, promised[w], committed[w]) }
  :: atomic { cuts > 0 && connected[w] -> /* the network; each end learns of it by itself */
       cuts--;
       connected[w] = false }
  :: atomic { deaths > 0 && alive[w] -> /* any signal, at any time */
       deaths--;
       die(w) }
#ifdef BROKEN_TIMER
  :: atomic { promised[w] != 0 -> /* a heuristic decision: in doubt for too long, so it was surely aborted */
       branch_aborted = branch_aborted | promised[w];
       assert(!(branch_committed & branch_aborted));
       promised[w] = 0 }
#endif
  od
}

/* ---- where every run ends ---------------------------------------------------------------------------------------- */

/* L1, L6: decided everywhere, nothing promised any more, and the ledger is what each worker's own account says. */
#define SETTLED(w)                                                                                                    \
  (here[w] && alive[w] && own_incarnation[w] == incarnation[w] && welcomed[w] && link_open[w] && decisions[w] == 0 &&  \
   promised[w] == 0 && committed[w] == residencies[w])
#if N == 1
#define ALL_SETTLED SETTLED(0)
#elif N == 2
#define ALL_SETTLED (SETTLED(0) && SETTLED(1))
#else
#define ALL_SETTLED (SETTLED(0) && SETTLED(1) && SETTLED(2))
#endif
#define QUIET                                                                                                         \
  (listening && !dirty && intent == 0 && len(held) == 0 && ALL_SETTLED &&                                             \
   (begun & ~(ever_committed | ever_aborted)) == 0)

#ifdef LIVENESS
ltl decided { <> [] QUIET }
#else
proctype Rest() {
end:
  atomic { timeout -> assert(QUIET) }
}
#endif

/* A first life that has started its workers, with nothing to do yet. Each crash shows how a life begins. */
init {
  atomic {
    up = true;
    listening = true;
    epoch = 1;
    journal_epoch = 1;
    do
    :: one < N ->
      begin_incarnation(one);
      incarnation[one] = 1;
      own_incarnation[one] = 1;
      here[one] = true;
      journal_incarnation[one] = 1;
      journal_here[one] = true;
      one++
    :: else -> break
    od;
    step_ends();
    run Orchestrator();
#ifndef LIVENESS
    run Rest();
#endif
    run Worker(0);
#if N > 1
    run Worker(1);
#endif
#if N > 2
    run Worker(2);
#endif
  }
}
