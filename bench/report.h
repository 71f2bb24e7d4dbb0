#pragma once

// What a benchmark prints (design §8): one object, every row beside its floor and its peers of the same run.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <boost/describe.hpp>

#include "env/real/this_machine.h"
#include "events/ordered.h"

namespace lockstep::bench {

/// floor   the hand-written minimum, measured in the same run
/// peers   what others take for the same, in the same run; one that is not there is absent
struct Row {
  std::string name;
  std::string unit;
  double value = 0;
  std::optional<double> p50;
  std::optional<double> p99;
  std::optional<std::uint64_t> runs;
  std::optional<double> floor;
  std::optional<Ordered<double>> peers;
  std::optional<double> target;
  std::string better = "lower";
};
BOOST_DESCRIBE_STRUCT(Row, (), (name, unit, value, p50, p99, runs, floor, peers, target, better))

struct Report {
  std::string bench;
  MachineFacts machine;
  std::vector<Row> rows;
};
BOOST_DESCRIBE_STRUCT(Report, (), (bench, machine, rows))

/// share 0 to 1; at least one sample
double percentile(std::vector<double> samples, double share);
/// One object, or a line a row for people.
std::string text_of(const Report& report, bool json);

}  // namespace lockstep::bench
