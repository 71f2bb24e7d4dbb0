#pragma once

// State machines are tables. next(state, event) is the only way to change a state; an absent pair is
// invalid_transition. A late or repeated event has its own row, so silence is never the meaning.

#include <array>
#include <cstddef>
#include <optional>

namespace lockstep {

template <class State, class Event, std::size_t N>
struct TransitionTable {
  struct Row {
    State from;
    Event event;
    State to;
  };
  std::array<Row, N> rows;

  constexpr std::optional<State> next(State state, Event event) const {
    for (const Row& row : rows) {
      if (row.from == state && row.event == event) return row.to;
    }
    return std::nullopt;
  }
  constexpr bool deterministic() const {
    for (std::size_t i = 0; i < N; ++i) {
      for (std::size_t j = i + 1; j < N; ++j) {
        if (rows[i].from == rows[j].from && rows[i].event == rows[j].event) return false;
      }
    }
    return true;
  }
};

template <class State, class Event, std::size_t N>
constexpr TransitionTable<State, Event, N> transition_table(
    const typename TransitionTable<State, Event, N>::Row (&rows)[N]) {
  TransitionTable<State, Event, N> table{};
  for (std::size_t i = 0; i < N; ++i) table.rows[i] = rows[i];
  return table;
}

}  // namespace lockstep
