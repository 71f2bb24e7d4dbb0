#pragma once

#include <string>

#include "domains/model/types.h"
#include "state/table.h"

namespace lockstep::model {

struct Tables {
  Table<Model> models{"model.models"};                // key: model id
  Table<Residency> residencies{"model.residencies"};  // key: residency_key()
  Table<Usage> usages{"model.usages"};                // key: model id

  template <class F>
  void for_each_table(F&& f) {
    f(models);
    f(residencies);
    f(usages);
  }
  template <class F>
  void for_each_table(F&& f) const {
    f(models);
    f(residencies);
    f(usages);
  }
};

std::string residency_key(const ModelId& model, const WorkerId& worker);

}  // namespace lockstep::model
