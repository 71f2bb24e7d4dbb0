#pragma once

// What people read: tables and lines made from the server's views and events. Pure functions.

#include <optional>
#include <string>
#include <vector>

#include "http/shapes.h"
#include "operations/views.h"

namespace lockstep::cli {

using Row = std::vector<std::string>;
/// Columns as wide as their longest cell, two spaces between; the first row is the heading.
std::string table_text(const std::vector<Row>& rows);

std::string text_of(const StatusView& view);
std::string text_of(const ModelsView& view);
std::string text_of(const RequestsView& view);
std::string text_of(const RequestView& view);
/// Time, rev, type, subject, body; cut to `width` columns.
std::string text_of(const http::EventLine& event, std::size_t width);

/// One step of a request in words.
struct Step {
  std::string words;    // "inference step 3/8"
  double percent = -1;  // of this step; below 0 when it has none
  friend bool operator==(const Step&, const Step&) = default;
};
/// What an event says to somebody who waits for `n` images; nothing when it says nothing to them. Progress of one of
/// several images starts with its number: "[2/4] inference step 3/8".
std::optional<Step> step_of(const http::EventLine& event, std::uint32_t n);

/// "safe (0.998)" of a safety check that ran.
std::optional<std::string> verdict_of(const std::optional<FinalResults>& results);

/// The server's text without what a terminal would obey: control characters become spaces.
std::string harmless(std::string_view text);

}  // namespace lockstep::cli
