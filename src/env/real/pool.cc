#include "env/real/pool.h"

#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>

namespace lockstep::real {

struct Pool::State {
  boost::asio::thread_pool threads;
};

Pool::Pool(std::size_t threads) : state_(new State{boost::asio::thread_pool(threads)}) {}
Pool::~Pool() { state_->threads.join(); }
void Pool::run(std::function<void()> work) { boost::asio::post(state_->threads, std::move(work)); }

}  // namespace lockstep::real
