#include "sim/disk.h"

#include <algorithm>
#include <utility>

namespace lockstep::sim {

namespace {

void put(std::string& image, std::size_t at, std::string_view bytes) {
  if (image.size() < at + bytes.size()) image.resize(at + bytes.size(), '\0');
  std::ranges::copy(bytes, image.begin() + static_cast<std::ptrdiff_t>(at));
}

void put_all(std::string& image, const std::vector<Disk::Write>& writes) {
  for (const Disk::Write& each : writes) {
    if (each.truncates) {
      if (each.at < image.size()) image.resize(each.at);
    } else {
      put(image, each.at, each.bytes);
    }
  }
}

}  // namespace

Disk::Disk(Random random, Told told)
    : random_(random), told_(std::move(told)), sector_(random_.chance(500'000) ? 512 : 4096) {}

void Disk::plan(DiskFault fault, int calls) { planned_.push_back({fault, calls + 1}); }

Io Disk::fail() {
  failed_ = true;
  return Io::failed;
}

/// The planned fault, if its turn has come.
bool Disk::take(DiskFault fault) {
  const auto due = [&](const Planned& each) { return each.fault == fault && each.calls <= 0; };
  const auto place = std::ranges::find_if(planned_, due);
  if (place == planned_.end()) return false;
  planned_.erase(place);
  return true;
}

/// What any call can meet. Whether the power fails in it, the call itself knows: it may have done something.
Io Disk::meet(Call call) {
  for (Planned& each : planned_) --each.calls;
  if (off_ || broken_) return fail();
  if (call == Call::writes && take(DiskFault::full)) full_ = true;
  broken_ = take(DiskFault::error_lasting);
  if (!broken_ && !take(DiskFault::error)) return Io::done;
  tell("disk_io_error");
  return fail();
}

/// The last words of a call that may meet a power cut.
Io Disk::end_of_call(bool changes) {
  std::optional<Left> left;
  if (take(DiskFault::power_cut)) left = Left::some;
  if (!left && changes && cut_here_) left = cut_here_();
  if (!left) return Io::done;
  cut_power(*left);
  return fail();
}

std::shared_ptr<Disk::File> Disk::open(const std::string& name, bool create) {
  if (meet(Call::other) != Io::done) return nullptr;
  const auto place = names_.find(name);
  if (place != names_.end()) return place->second;
  if (!create) return nullptr;
  const auto file = std::make_shared<File>();
  file->log = name.ends_with("-wal");
  return names_[name] = file;
}

Io Disk::remove(const std::string& name, bool sync_folder) {
  if (const Io met = meet(Call::other); met != Io::done) return met;
  names_.erase(name);
  if (const Io ended = end_of_call(); ended != Io::done) return ended;
  if (sync_folder) durable_names_ = names_;
  return Io::done;
}

Io Disk::exists(const std::string& name, bool& out) {
  out = names_.contains(name);
  return meet(Call::other);
}

Io Disk::read(const File& file, std::size_t at, std::size_t size, std::string_view& out) {
  if (const Io met = meet(Call::other); met != Io::done) return met;
  if (const Io ended = end_of_call(false); ended != Io::done) return ended;
  out = at >= file.seen.size() ? std::string_view() : std::string_view(file.seen).substr(at, size);
  return Io::done;
}

Io Disk::write(File& file, std::size_t at, std::string_view bytes) {
  if (const Io met = meet(Call::writes); met != Io::done) return met;
  if (full_ && at + bytes.size() > file.seen.size()) {
    tell("disk_full");
    failed_ = true;
    return Io::full;
  }
  put(file.seen, at, bytes);
  file.pending.push_back({at, std::string(bytes)});
  return end_of_call();
}

Io Disk::truncate(File& file, std::size_t size) {
  if (const Io met = meet(Call::other); met != Io::done) return met;
  if (size < file.seen.size()) {
    file.seen.resize(size);
    file.pending.push_back({size, "", true});
  }
  return end_of_call();
}

Io Disk::sync(File& file, bool folder) {
  if (const Io met = meet(Call::other); met != Io::done) return met;
  if (const Io ended = end_of_call(); ended != Io::done) return ended;
  const bool dropped = take(DiskFault::sync_dropped);
  if (dropped || take(DiskFault::sync_kept)) {
    tell(dropped ? "disk_sync_dropped" : "disk_sync_kept");
    leave_some(file.durable, file.pending);
    file.pending.clear();
    if (dropped) file.seen = file.durable;
    sync_failed_ = true;
    return fail();
  }
  if (take(DiskFault::lying_sync)) lies_ = true;
  if (lies_) {
    if (!std::exchange(file.lied_to, true)) file.truth = file.durable;
    tell(file.log ? "disk_lying_sync" : "disk_lying_checkpoint");
    file.lied.insert(file.lied.end(), file.pending.begin(), file.pending.end());
  } else if (std::exchange(file.lied_to, false)) {
    file.lied.clear();
  }
  put_all(file.durable, file.pending);
  file.pending.clear();
  if (folder) durable_names_ = names_;
  return Io::done;
}

void Disk::kill() { ++life_; }

void Disk::cut_power(Left what) {
  ++life_;
  off_ = true;
  auto left = what == Left::some ? some_names() : what == Left::all ? names_ : durable_names_;
  for (const auto& [name, file] : left) {
    if (what == Left::some) leave_some(file->durable, file->pending);
    if (what == Left::all) put_all(file->durable, file->pending);
    file->pending.clear();
    file->seen = file->durable;
    file->lied_to = false;
    file->lied.clear();
  }
  names_ = durable_names_ = std::move(left);
  lies_ = false;
}

std::map<std::string, std::shared_ptr<Disk::File>> Disk::some_names() {
  std::map<std::string, std::shared_ptr<File>> left;
  for (const auto* names : {&names_, &durable_names_}) {
    for (const auto& [name, file] : *names) {
      // A name that was made or unmade without a sync of the folder may be there or not.
      const auto now = names_.find(name);
      const auto then = durable_names_.find(name);
      const bool settled = now != names_.end() && then != durable_names_.end() && now->second == then->second;
      if (left.contains(name) || (!settled && random_.chance(500'000))) continue;
      left[name] = file;
    }
  }
  return left;
}

void Disk::leave_some(std::string& image, const std::vector<Write>& writes) {
  static constexpr std::uint64_t shares[] = {0, 100'000, 500'000, 900'000, 1'000'000};
  const std::uint64_t keeps = shares[random_.between(0, 4)];
  const std::uint64_t tears = random_.chance(500'000) ? 200'000 : 0;
  bool torn = false;
  bool kept = false;
  bool lost = false;
  for (const Write& write : writes) {
    if (write.truncates) {
      if (random_.chance(keeps) && write.at < image.size()) image.resize(write.at);
      continue;
    }
    for (std::size_t at = write.at; at < write.at + write.bytes.size();) {
      const std::size_t end = std::min((at / sector_ + 1) * sector_, write.at + write.bytes.size());
      const std::string_view piece = std::string_view(write.bytes).substr(at - write.at, end - at);
      if (piece.size() > 1 && random_.chance(tears)) {
        const auto part = static_cast<std::size_t>(random_.between(1, static_cast<std::int64_t>(piece.size()) - 1));
        switch (random_.between(0, 2)) {
          case 0: put(image, at, piece.substr(0, part)); break;
          case 1: put(image, at + part, piece.substr(part)); break;
          default:
            std::string noise(piece);
            for (char& each : noise) each = static_cast<char>(random_.next());
            put(image, at, noise);
        }
        torn = true;
      } else if (random_.chance(keeps)) {
        put(image, at, piece);
        kept = true;
      } else {
        lost = true;
      }
      at = end;
    }
  }
  if (torn) tell("disk_torn_write");
  if (kept) tell("disk_kept_unsynced");
  if (lost) tell("disk_lost_unsynced");
}

void Disk::repair() {
  planned_.clear();
  broken_ = false;
  full_ = false;
  stop_lying();
}

void Disk::stop_lying() {
  lies_ = false;
  for (const auto& [name, file] : names_) {
    file->lied_to = false;
    file->lied.clear();
    file->truth.clear();
  }
}

Disk Disk::copy() {
  Disk out(random_.fork(), nullptr);
  out.sector_ = sector_;
  for (const auto& [name, file] : names_) out.names_[name] = std::make_shared<File>(*file);
  out.durable_names_ = out.names_;
  return out;
}

Disk Disk::left_by_lies() {
  Disk out = copy();
  for (const auto& [name, file] : out.names_) {
    if (!file->lied_to) continue;
    file->durable = std::move(file->truth);
    file->pending.insert(file->pending.begin(), file->lied.begin(), file->lied.end());
  }
  out.cut_power();
  out.power_on();
  return out;
}

Disk::File* Disk::file(const std::string& name) {
  const auto place = names_.find(name);
  return place == names_.end() ? nullptr : place->second.get();
}

}  // namespace lockstep::sim
