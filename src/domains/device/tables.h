#pragma once

#include "domains/device/types.h"
#include "state/table.h"

namespace lockstep::device {

struct Tables {
  Table<Device> devices{"device.devices"};                 // key: device id
  Table<Reservation> reservations{"device.reservations"};  // key: device id

  template <class Self, class F>
  static void each(Self& self, F& f) {
    f(self.devices);
    f(self.reservations);
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
