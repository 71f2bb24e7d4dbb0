#pragma once

// How urgent a message is (§2.7). P0 overtakes everything; P3 may be conflated.

#include <cstdint>

#include <boost/describe.hpp>

namespace lockstep {

enum class Urgency : std::uint8_t { p0_critical, p1_high, p2_normal, p3_low };
BOOST_DESCRIBE_ENUM(Urgency, p0_critical, p1_high, p2_normal, p3_low)

}  // namespace lockstep
