// The peer of `lockstep bench codec`, in a file of its own: the library is compiled here, and nowhere else used.

#include "bench/codec.h"

#include <boost/json/src.hpp>

namespace lockstep::bench {

PlainCompleted boost_json_decode(std::string_view text) {
  const boost::json::value tree = boost::json::parse(boost::json::string_view(text.data(), text.size()));
  return boost::json::value_to<PlainCompleted>(tree);
}

std::string boost_json_encode(const PlainCompleted& message) {
  return boost::json::serialize(boost::json::value_from(message));
}

}  // namespace lockstep::bench
