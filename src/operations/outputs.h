#pragma once

// Outputs as people look for them, and the policy that decides what is delivered (§1.6, §2.6).

#include <optional>
#include <string>
#include <vector>

#include <boost/describe.hpp>

#include "base/result.h"
#include "operations/tables.h"

namespace lockstep {

struct OutputView {
  std::string sha256;
  RequestId request_id;
  JobId job_id;
  std::uint32_t width = 0;
  std::uint32_t height = 0;
  std::uint64_t bytes = 0;
  std::uint64_t seed = 0;
  std::string created;  // RFC 3339
  std::vector<std::string> tags;
  std::string review;  // why a person should look at it; empty when nobody has to
  std::optional<FinalResults> results;
  std::string format;
};
BOOST_DESCRIBE_STRUCT(OutputView, (),
                      (sha256, request_id, job_id, width, height, bytes, seed, created, tags, review, results, format))

struct OutputsView {
  Rev rev;
  std::vector<OutputView> outputs;  // newest first, at most 200
};
BOOST_DESCRIBE_STRUCT(OutputsView, (), (rev, outputs))

/// Which outputs: those with the tag, those that wait for a person, those of this content. Absent: all.
struct OutputFilter {
  std::optional<std::string> tag;
  std::optional<bool> review;
  std::optional<std::string> sha256;
};
BOOST_DESCRIBE_STRUCT(OutputFilter, (), (tag, review, sha256))

/// The body of POST /api/v1/outputs/<sha256>/tags. `reviewed` takes the output off the list for review.
struct TagBody {
  std::optional<std::vector<std::string>> add;
  std::optional<std::vector<std::string>> remove;
  std::optional<bool> reviewed;
};
BOOST_DESCRIBE_STRUCT(TagBody, (), (add, remove, reviewed))

OutputsView outputs_view(const Tables& tables, Rev rev, const OutputFilter& filter);

/// Every output of this content gets and loses tags; not_found when there is none.
Status tag_outputs(const Tables& tables, const std::string& sha256, const TagBody& body, Change& change);

/// The policy for all that completes from now on; invalid_argument when its version is empty or the present one.
Status set_safety_policy(const Tables& tables, const SafetyPolicyUpdate& policy, Change& change);

}  // namespace lockstep
