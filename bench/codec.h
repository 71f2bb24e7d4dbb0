#pragma once

// `lockstep bench codec`: one event of about 350 bytes read, validated and written, beside the same by hand (which
// knows the layout and checks nothing) and by Boost.JSON, in one run.

#include <string>
#include <string_view>
#include <vector>

#include <boost/describe.hpp>

#include "bench/report.h"

namespace lockstep::bench {

Report codec(int rounds);

/// The event once more, as plainly typed as a library that knows no units would have it.
struct PlainResultMetadata {
  double execution_time = 0;
  unsigned total_steps_executed = 0;
  std::string final_vram_usage;
  double result_quality_score = 0;
};
BOOST_DESCRIBE_STRUCT(PlainResultMetadata, (),
                      (execution_time, total_steps_executed, final_vram_usage, result_quality_score))
struct PlainCompleted {
  std::string event_type;
  std::string request_id;
  PlainResultMetadata result_metadata;
  std::string result_location;
  bool requires_postprocessing = false;
  std::vector<std::string> postprocessing_recommendations;
};
BOOST_DESCRIBE_STRUCT(PlainCompleted, (),
                      (event_type, request_id, result_metadata, result_location, requires_postprocessing,
                       postprocessing_recommendations))

/// Boost.JSON: a tree, then value_to and value_from (bench/boost_json.cc).
PlainCompleted boost_json_decode(std::string_view text);
std::string boost_json_encode(const PlainCompleted& message);

}  // namespace lockstep::bench
