#pragma once

// What a file of weights is, from the names and shapes of its tensors alone. The table in guess.cc is the
// documentation: one row for each family, the first that fits counts.

#include <map>
#include <string>
#include <vector>

#include "domains/model/safetensors.h"
#include "domains/model/types.h"

namespace lockstep::model {

/// kind unknown: nothing here runs it; `problem` says what it is, or that nobody knows. evidence is for people: the
/// patterns that decided, each with a name that fits.
struct Guess {
  Kind kind = Kind::unknown;
  std::string architecture;  // "sdxl", "sdxl_refiner", "esrgan", ...; of a LoRA: that of the base it changes
  std::vector<std::string> evidence;
  std::string problem;
};

/// tensors   of all files of one component
/// metadata  the `__metadata__` of its header; trainers write there which base a LoRA is for
Guess guess(const std::vector<Tensor>& tensors, const std::map<std::string, std::string>& metadata);

/// "stable-diffusion-xl-v1-base", "sdxl_base_v1-0" and the like as a word of ours; empty for one that says nothing.
std::string architecture_named(const std::string& text);

}  // namespace lockstep::model
