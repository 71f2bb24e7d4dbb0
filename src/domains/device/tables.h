#pragma once

#include "domains/device/config.h"
#include "domains/device/health.h"
#include "domains/device/routing.h"
#include "domains/device/types.h"
#include "state/table.h"

namespace lockstep::device {

struct Tables {
  Table<Device> devices{"device.devices"};                 // key: device id
  Table<Reservation> reservations{"device.reservations"};  // key: device id

  Table<Capabilities> capabilities{"device.capabilities"};  // key: device id
  Table<Health> health{"device.health"};                    // key: device id; absent: ok
  Table<Config> configs{"device.configs"};                  // key: device id; absent: all defaults
  Table<Routing> routing{"device.routing"};                 // one row, key "routing"

  const Routing* routes() const { return routing.find("routing"); }
  Config config_of(const DeviceId& device) const {
    const Config* row = configs.find(device.str());
    return row == nullptr ? Config{.device_id = device} : *row;
  }
  HealthLevel level_of(const DeviceId& device) const {
    const Health* row = health.find(device.str());
    return row == nullptr ? HealthLevel::ok : row->level;
  }

  template <class Self, class F>
  static void each(Self& self, F& f) {
    f(self.devices);
    f(self.reservations);
    f(self.capabilities);
    f(self.health);
    f(self.configs);
    f(self.routing);
  }
  template <class F>
  void for_each_table(F&& f) {
    each(*this, f);
  }
  template <class F>
  void for_each_table(F&& f) const {
    each(*this, f);
  }
};

}  // namespace lockstep::device
