// The thin binding of the worker runtime: the same names, no policy. The friendly layer is python/lockstep/worker.py.
// Waiting releases the interpreter lock; the runtime's own thread never takes it.

#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>

#include "events/json_write.h"
#include "worker/real/runtime.h"

namespace nb = nanobind;
using lockstep::worker::Runtime;
using lockstep::worker::Task;

namespace {

// nanobind keeps objects in holders of its own; these two own the runtime's.
struct PyTask {
  std::shared_ptr<Task> task;
};

struct PyRuntime {
  std::unique_ptr<Runtime> runtime;
};

std::vector<int> take_fds(PyTask& self) {
  auto taken = [&] {
    nb::gil_scoped_release unlocked;  // over a network they may still be on their way
    return self.task->take_descriptors();
  }();
  if (!taken) throw std::runtime_error(taken.error().message);
  std::vector<int> out;
  for (lockstep::real::Fd& each : *taken) out.push_back(each.release());
  return out;
}

void said(const lockstep::Status& status) {
  if (!status) throw std::invalid_argument(status.error().pointer + ": " + status.error().message);
}

}  // namespace

NB_MODULE(_native, module) {
  nb::class_<PyTask>(module, "Task")
      .def_prop_ro("kind", [](const PyTask& self) { return self.task->kind(); })
      .def_prop_ro(
          "body", [](const PyTask& self) { return self.task->body(); }, "JSON text")
      .def("take_fds", &take_fds, "The descriptors that came with the task; the caller owns them. Once.")
      .def_prop_ro("cancelled", [](const PyTask& self) { return self.task->cancelled(); })
      .def(
          "progress", [](PyTask& self, std::string report) { self.task->progress(std::move(report)); },
          nb::arg("report"))
      .def(
          "part",
          [](PyTask& self, std::string request_id, std::string report, const std::vector<int>& fds) {
            std::vector<lockstep::real::Fd> owned;
            for (const int fd : fds) owned.emplace_back(fd);
            self.task->part(std::move(request_id), std::move(report), std::move(owned));
          },
          nb::arg("request_id"), nb::arg("report"), nb::arg("fds"), "Takes over the descriptors.")
      .def(
          "done",
          [](PyTask& self, std::string report, const std::vector<int>& fds) {
            std::vector<lockstep::real::Fd> owned;
            for (const int fd : fds) owned.emplace_back(fd);
            self.task->done(std::move(report), std::move(owned));
          },
          nb::arg("report"), nb::arg("fds"), "Takes over the descriptors.")
      .def(
          "failed",
          [](PyTask& self, std::string code, std::string message) {
            self.task->failed(std::move(code), std::move(message));
          },
          nb::arg("code"), nb::arg("message"));

  nb::class_<PyRuntime>(module, "Runtime")
      .def_static(
          "from_environment",
          [] {
            auto runtime = Runtime::from_environment();
            if (!runtime) throw std::runtime_error(runtime.error().message);
            return new PyRuntime{*std::move(runtime)};
          },
          nb::rv_policy::take_ownership)
      .def_static(
          "dial",
          [](std::string address, std::string worker_id, std::string secret, std::string certificate, std::string key,
             std::string authority, std::string device, std::uint64_t memory, double patience) {
            auto runtime = Runtime::dial({std::move(address),
                                          std::move(worker_id),
                                          std::move(secret),
                                          {std::move(certificate), std::move(key), std::move(authority)},
                                          std::move(device),
                                          lockstep::Bytes{memory},
                                          static_cast<lockstep::Nanos>(patience * 1e9)});
            if (!runtime) throw std::invalid_argument(runtime.error().message);
            return new PyRuntime{*std::move(runtime)};
          },
          nb::rv_policy::take_ownership, nb::arg("address"), nb::arg("worker_id"), nb::arg("secret"),
          nb::arg("certificate"), nb::arg("key"), nb::arg("authority"), nb::arg("device"), nb::arg("memory"),
          nb::arg("patience"))
      .def("handlers_ready", [](PyRuntime& self) { self.runtime->handlers_ready(); })
      .def(
          "next_task",
          [](PyRuntime& self, int timeout_ms) -> nb::object {
            std::shared_ptr<Task> task;
            {
              nb::gil_scoped_release unlocked;
              task = self.runtime->next_task(timeout_ms);
            }
            if (task == nullptr) return nb::none();
            return nb::cast(PyTask{std::move(task)});
          },
          nb::arg("timeout_ms"), "The next task, or None when none came in time.")
      .def(
          "set_allocator",
          [](PyRuntime& self, std::uint64_t allocated, std::uint64_t reserved, std::uint64_t inactive_split,
             std::uint64_t retries, std::uint64_t out_of_memory) {
            using lockstep::Bytes;
            self.runtime->set_allocator(
                {Bytes{allocated}, Bytes{reserved}, Bytes{inactive_split}, retries, out_of_memory});
          },
          nb::arg("allocated"), nb::arg("reserved"), nb::arg("inactive_split"), nb::arg("retries"),
          nb::arg("out_of_memory"))
      .def("ask_memory", [](PyRuntime& self, const std::string& body) { said(self.runtime->ask_memory(body)); })
      .def("coordinate",
           [](PyRuntime& self, const std::string& body) {
             auto id = self.runtime->coordinate(body);
             if (!id) throw std::invalid_argument(id.error().message);
             return *std::move(id);
           })
      .def("update_reservation",
           [](PyRuntime& self, const std::string& body) { said(self.runtime->update_reservation(body)); })
      .def(
          "request_answer",
          [](PyRuntime& self, const std::string& request_type, const std::string& request_id) {
            nb::gil_scoped_release unlocked;
            return self.runtime->request_answer(request_type, request_id);
          },
          nb::arg("request_type"), nb::arg("request_id"))
      .def(
          "state",
          [](PyRuntime& self) {
            nb::gil_scoped_release unlocked;
            return lockstep::json::to_text(self.runtime->state());
          },
          "JSON text of src/worker/told.h");
}
