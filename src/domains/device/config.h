#pragma once

// What a device is told to be, and who may use it (§1.1 policies, preferences, profiles, error policy). The settings
// have two values: intended, what was decided here, and confirmed, what its worker has applied. A setting the worker
// cannot apply stays rejected, with the reason, and both values stay readable.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <boost/describe.hpp>

#include "base/ids.h"
#include "base/result.h"
#include "domains/device/health.h"
#include "events/device_events.h"
#include "events/link_messages.h"

namespace lockstep::device {

/// Who may use the device; an empty list lets everyone.
/// work             "inference", "postprocessing", "check"
/// session_classes  "critical", "interactive", "batch", "background"
struct Access {
  std::vector<std::string> work;
  std::vector<std::string> session_classes;
  static constexpr json::Rule rules[] = {
      {.member = "work", .words = "inference, postprocessing, check"},
      {.member = "session_classes", .words = "critical, interactive, batch, background"},
  };
};
BOOST_DESCRIBE_STRUCT(Access, (), (work, session_classes))

/// revision            of `intended`, from 1; rises with every change of it
/// confirmed_revision  the newest that the worker has answered; 0 when it has not, or is gone
struct Config {
  DeviceId device_id;
  std::uint64_t revision = 0;
  DeviceChanges intended;
  DeviceChanges confirmed;
  std::uint64_t confirmed_revision = 0;
  std::vector<RejectedSetting> rejected;
  Access access;
  HealthLimits health;
};
BOOST_DESCRIBE_STRUCT(Config, (),
                      (device_id, revision, intended, confirmed, confirmed_revision, rejected, access, health))

/// The body of PUT and PATCH /api/v1/devices/<id>/config. PUT: what is absent becomes the default again.
struct ConfigBody {
  std::optional<std::string> optimization_profile;
  std::optional<std::uint32_t> power_limit;
  std::optional<std::string> memory_allocation_policy;
  std::optional<Access> access;
  std::optional<HealthLimits> health;
  static constexpr json::Rule rules[] = {{.member = "power_limit", .min = 1, .unit = "watts"}};
};
BOOST_DESCRIBE_STRUCT(ConfigBody, (), (optimization_profile, power_limit, memory_allocation_policy, access, health))

/// The configuration after a person's change; invalid_argument names field, value and what is possible.
/// whole: PUT.
Result<Config> changed(Config config, const ConfigBody& body, bool whole);

/// What the worker has answered about revision `revision`; an older revision changes nothing.
Config confirmed(Config config, std::uint64_t revision, const std::vector<RejectedSetting>& rejected);

/// Its worker is gone, and what it had applied with it.
Config unconfirmed(Config config);

/// "" when the device may do this work for this class, otherwise why not.
std::string refused_because(const Config& config, std::string_view work, std::string_view session_class);

/// The share of a device's budget that a policy keeps free: aggressive 0, moderate 5 %, conservative 15 %.
Result<double> reserved_share(std::string_view memory_allocation_policy);

/// The budget that may be granted: less what the more careful of the intended and the confirmed policy keeps free.
Bytes grantable(Bytes budget, const Config& config);

}  // namespace lockstep::device
