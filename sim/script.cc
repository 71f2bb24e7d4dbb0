// What a script does, and where its lives end.

#include "sim/script.h"

#include "base/check.h"
#include "base/text.h"
#include "events/json_read.h"
#include "propagation/framing.h"
#include "sim/simulation.h"

namespace lockstep::sim {

namespace {

constexpr Nanos begins = seconds(4);  // the workers are ready
constexpr Nanos restarting = seconds(2);
constexpr Nanos pause_length = seconds(15);

}  // namespace

const std::vector<Script>& scripts() {
  using What = Act::What;
  static const std::vector<Script> all{
      {"load", "a model is loaded", {{begins, What::load}}},
      {"undone", "a load fails after it was decided", {{begins, What::load}}, 1},
      {"refused", "a worker votes no", {{begins, What::load}}, 0, true},
      {"late", "a worker does not vote in time", {{begins, What::load}, {begins + milliseconds(1), What::pause}}},
      {"generate", "an image, from the load to the answer", {{begins, What::generate}}},
      {"change", "a model gives way to another", {{begins, What::load}, {begins + seconds(3), What::load, "base-b"}}},
      {"unload",
       "a model is let go while another request wants it",
       {{begins, What::load}, {begins + seconds(3), What::unload}, {begins + seconds(3) + 1, What::generate}}},
      {"gate", "the second of two images fails its gate", {{begins, What::generate_gated, "base-a", 2}}},
      {"cancel",
       "a request is cancelled while it runs",
       {{begins, What::generate, "base-a", 2}, {begins + milliseconds(2500), What::cancel}}},
      {"again",
       "a request is asked for again under its key",
       {{begins, What::generate, "base-a", 1, "k"},
        {begins + milliseconds(1500), What::generate, "base-a", 1, "k"},
        {begins + seconds(6), What::generate, "base-a", 1, "k"}}},
  };
  return all;
}

const Script* script_of(std::string_view name) {
  for (const Script& each : scripts()) {
    if (each.name == name) return &each;
  }
  return nullptr;
}

void World::plan_script() {
  const Script* script = script_of(options_.script);
  LOCKSTEP_CHECK(script != nullptr);
  failing_loads_ = script->failing_loads;
  refusing_ = script->refusing;
  for (const Act& each : script->acts) at(each.at, [this, each] { act(each); });
  disk_.cut_power_when([this]() -> std::optional<Left> {
    if (ends_here("power")) return Left::some;
    if (ends_here("kept")) return Left::all;
    if (ends_here("lost")) return Left::nothing;
    return std::nullopt;
  });
}

void World::act(const Act& what) {
  if (what.what == Act::What::pause) {
    if (Process* process = living(WorkerId("worker_0"))) pause(*process, pause_length, false);
    return;
  }
  if (!loop_) return after(milliseconds(100), [this, what] { act(what); });  // nobody listens: as a person would
  ++report_.operations;
  const ReplyId reply = ++replies_made_;
  switch (what.what) {
    case Act::What::load:
      waiting_replies_[reply] = "place";
      trace("client", cat("load ", what.model));
      return input(in::LoadModel{reply, ModelId(std::string(what.model)), WorkerId("worker_0"), false});
    case Act::What::unload:
      waiting_replies_[reply] = "place";
      trace("client", cat("unload ", what.model));
      return input(in::UnloadModel{reply, ModelId(std::string(what.model)), WorkerId("worker_0"), false});
    case Act::What::cancel:
      if (accepted_.empty()) return;  // it was not told of one
      waiting_replies_[reply] = "cancel";
      trace("client", cat("cancel ", *accepted_.rbegin()));
      return input(in::Cancel{reply, RequestId(*accepted_.rbegin())});
    case Act::What::generate:
    case Act::What::generate_gated:
    case Act::What::pause: break;
  }
  GenerateBody body;
  body.prompt = "script";
  body.model = std::string(what.model);
  body.n = what.images;
  body.size = "64x64";
  body.steps = 2;
  const bool gated = what.what == Act::What::generate_gated;
  if (gated) body.error_handling = processing::ErrorHandling::cascade_rollback;
  std::uint64_t seed = 1;
  const auto fits = [&] {
    for (std::uint64_t i = 0; i < what.images; ++i) {
      if (is_unsafe(pixels_of(body.prompt, seed + i)) != (gated && i == 1)) return false;
    }
    return true;
  };
  while (!fits()) ++seed;
  waiting_replies_[reply] = "generate";
  const bool waits = what.images == 1 && what.key.empty();  // the others are told that it was accepted
  const in::Generate asked{reply, body, seed, waits};
  trace("client", cat("generate ", what.images, " of ", what.model));
  if (what.key.empty()) return input(asked);
  const std::string key(what.key);
  keyed_.try_emplace(key, Keyed{asked, "", "", {}}).first->second.seeds.insert(seed);
  reply_keys_[reply] = key;
  input(asked, IdempotencyKey{key, key, reply});
}

Frame World::with_little_memory(const Frame& welcome) {
  Envelope envelope = from_frame(welcome).value();
  auto body = json::from_text<Welcome>(envelope.body.text).value();
  body.memory_budget = 2_GiB;
  envelope.body = RawJson{json::to_text(body)};
  Frame out = to_frame(FrameType::welcome, std::move(envelope), welcome.header.descriptors);
  out.header.sequence = welcome.header.sequence;
  return out;
}

bool World::ends_here(const std::string& where) {
  if (!scripted()) return false;
  const std::uint64_t number = ++report_.points[where];
  if (report_.crashed == options_.crashes.size() || options_.crashes[report_.crashed] != Crash{where, number}) {
    return false;
  }
  trace("script", cat("ends here: ", where, ":", number));
  ++report_.crashed;
  report_.points.clear();
  report_.restart.clear();
  return true;
}

void World::watch_restart() {
  if (report_.crashed == 0 || report_.crashed < options_.crashes.size() || !report_.restart.empty()) return;
  after(restarting, [this, life = life_] {
    if (life == life_) report_.restart = report_.points;
  });
}

}  // namespace lockstep::sim
