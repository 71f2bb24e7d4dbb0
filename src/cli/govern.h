#pragma once

// `lockstep devices`, `routing`, `memory` and `propagation`: what is set, what is confirmed, and how to change it.

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "cli/exit_code.h"
#include "http/client.h"
#include "operations/views.h"

namespace lockstep::cli {

std::string text_of(const DevicesView& view);
/// What is intended and what is confirmed, a change a line.
std::string text_of(const PropagationView& view);

/// "key=value" words as one JSON object: a number as a number, anything else as text, and so what stands under one of
/// `texts`. invalid_argument names the word that is none.
Result<std::string> object_of(const std::vector<std::string>& words, const std::vector<std::string_view>& texts = {});

/// A JSON value for people: one key a line, what is inside an object or a list below it and further in. Other values
/// stay as the server wrote them.
std::string outline_of(const std::string& json, std::size_t indent = 0);

/// What a calibration has changed, a score a line.
std::string text_of(const CalibrationView& view);

ExitCode list_devices(const http::Address& address, bool as_json);
/// What is set for the device, and behind it, under "device", how it is now.
ExitCode show_device(const http::Address& address, const std::string& id, bool as_json);
/// Has it measured again, and waits until it is.
ExitCode calibrate_device(const http::Address& address, const std::string& id, bool as_json);
/// worker: empty for all.
ExitCode show_propagation(const http::Address& address, const std::string& worker, bool as_json);
/// The server's JSON for one path below /api/v1, for people as an outline.
ExitCode show_setting(const http::Address& address, const std::string& path, bool as_json);
/// How full each pool was in the last hour and day.
ExitCode show_memory_history(const http::Address& address, bool as_json);
/// PATCH of the words, or PUT when `whole`; with `under`, inside that key. Prints what is set now.
ExitCode set_setting(const http::Address& address, const std::string& path, const std::vector<std::string>& words,
                     std::string_view under, bool whole, bool as_json);

}  // namespace lockstep::cli
