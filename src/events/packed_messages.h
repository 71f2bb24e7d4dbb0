#pragma once

// Which messages may cross a link packed (events/packed.h), in one place: the events of §2.1-2.6, which name
// themselves, and the list below. The schema digest covers these and nothing else, so two ends of one digest read all
// of them alike; every other message is JSON on every link.

#include <boost/mp11/algorithm.hpp>
#include <boost/mp11/list.hpp>

#include "events/link_messages.h"

namespace lockstep {

/// Of what crosses beside the events: two-phase commit, which every load waits for (§3.5).
using PackedLinkMessages =
    boost::mp11::mp_list<TransactionPrepare, TransactionVote, TransactionDecision, TransactionAck>;

template <class Body>
concept Packable = requires { Body::event_type; } || boost::mp11::mp_contains<PackedLinkMessages, Body>::value;

}  // namespace lockstep
