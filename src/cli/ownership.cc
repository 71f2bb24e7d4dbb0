#include "cli/ownership.h"

#include <cstdio>
#include <vector>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include "base/text.h"
#include "events/json_write.h"
#include "ownership/table.h"

namespace lockstep::cli {

namespace {

using ownership::Fact;

struct FactView {
  std::string fact;
  std::string section;
  std::string owner;
  std::string readers;
  std::vector<std::string> tables;  // empty: volatile
  bool people_may_change = false;
  std::string is;
  std::vector<std::string> crosses_by;  // frame types, from the owner to the other side
};
BOOST_DESCRIBE_STRUCT(FactView, (), (fact, section, owner, readers, tables, people_may_change, is, crosses_by))

struct EventView {
  std::string event;
  std::string sender;
  std::vector<std::string> writes;
};
BOOST_DESCRIBE_STRUCT(EventView, (), (event, sender, writes))

struct SyncView {
  std::string sync_point;
  std::string section;
  std::string from;
  std::vector<std::string> events;
};
BOOST_DESCRIBE_STRUCT(SyncView, (), (sync_point, section, from, events))

struct OwnershipView {
  std::vector<FactView> facts;
  std::vector<EventView> events;
  std::vector<SyncView> sync_points;
};
BOOST_DESCRIBE_STRUCT(OwnershipView, (), (facts, events, sync_points))

template <class Optionals>
std::vector<std::string> names_of(const Optionals& all) {
  std::vector<std::string> out;
  for (const auto& each : all) {
    if (each) out.push_back(json::enum_name(*each));
  }
  return out;
}

OwnershipView view() {
  OwnershipView out;
  for (const ownership::FactRow& row : ownership::fact_table()) {
    FactView fact{json::enum_name(row.fact),
                  std::string(row.section),
                  json::enum_name(row.owner),
                  json::enum_name(row.readers),
                  {},
                  row.people_may_change,
                  std::string(row.is),
                  {}};
    for (const std::string_view table : row.tables) {
      if (!table.empty()) fact.tables.emplace_back(table);
    }
    for (const ownership::EventRow& event : ownership::event_table()) {
      for (const auto& written : event.writes) {
        if (written == row.fact) fact.crosses_by.push_back(json::enum_name(event.type));
      }
    }
    out.facts.push_back(std::move(fact));
  }
  for (const ownership::EventRow& row : ownership::event_table()) {
    out.events.push_back({json::enum_name(row.type), json::enum_name(row.sender), names_of(row.writes)});
  }
  for (const ownership::SyncRow& row : ownership::sync_table()) {
    out.sync_points.push_back(
        {json::enum_name(row.point), std::string(row.section), json::enum_name(row.from), names_of(row.events)});
  }
  return out;
}

}  // namespace

std::string ownership_text(bool json) {
  const OwnershipView all = view();
  if (json) return json::to_text(all) + "\n";
  std::string out;
  for (const FactView& fact : all.facts) {
    out += cat(fact.section, "  ", fact.fact, ": ", fact.owner, "; ", fact.is, "\n");
  }
  return out;
}

struct Ownership::State {
  CLI::App* app = nullptr;
  bool json = false;
};

Ownership::Ownership(CLI::App& app) : state_(std::make_unique<State>()) {
  state_->app = app.add_subcommand("ownership", "which side may write which fact, and how it reaches the other");
  state_->app->add_flag("--json", state_->json, "print one object: facts, events, sync points");
}
Ownership::~Ownership() = default;

std::optional<int> Ownership::run() {
  if (!state_->app->parsed()) return std::nullopt;
  const std::string text = ownership_text(state_->json);
  std::fwrite(text.data(), 1, text.size(), stdout);
  return 0;
}

}  // namespace lockstep::cli
