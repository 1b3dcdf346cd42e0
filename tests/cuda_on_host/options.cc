#include "tests/cuda_on_host/options.h"

#include <cstdio>
#include <cstdlib>
#include <string>

namespace cuda_on_host {
namespace {

[[noreturn]] void Refuse(const std::string& word) {
  std::fprintf(stderr, "CUDA_ON_HOST: unknown option '%s'\n", word.c_str());
  std::exit(2);
}

void ParseOption(const std::string& word, Options* o) {
  const size_t equals = word.find('=');
  const std::string key = word.substr(0, equals);
  const std::string value =
      equals == std::string::npos ? "1" : word.substr(equals + 1);
  if (key == "schedule" && value == "in-order") {
    o->schedule = Options::Schedule::kInOrder;
  } else if (key == "schedule" && value == "reverse") {
    o->schedule = Options::Schedule::kReverse;
  } else if (key == "schedule" && value == "random") {
    o->schedule = Options::Schedule::kRandom;
  } else if (key == "streams" && value == "eager") {
    o->streams = Options::Streams::kEager;
  } else if (key == "streams" && value == "random") {
    o->streams = Options::Streams::kRandom;
  } else if (key == "mma" && value == "plain") {
    o->mma = Options::Mma::kPlain;
  } else if (key == "mma" && value == "ampere") {
    o->mma = Options::Mma::kAmpere;
  } else if (key == "mma" && value == "hopper") {
    o->mma = Options::Mma::kHopper;
  } else if (key == "seed") {
    o->seed = std::strtoull(value.c_str(), nullptr, 10);
  } else if (key == "perturb") {
    o->perturb = value != "0";
  } else if (key == "races") {
    o->check_races = value != "0";
  } else if (key == "count") {
    o->count = value != "0";
  } else if (key == "devices") {
    o->device_count = std::atoi(value.c_str());
  } else if (key == "sm") {
    o->compute_capability = std::atoi(value.c_str());
  } else if (key == "memory") {
    o->memory_bytes = std::strtoll(value.c_str(), nullptr, 10);
  } else if (key == "fault") {
    o->fault_after_launches = std::strtoll(value.c_str(), nullptr, 10);
  } else {
    Refuse(word);
  }
}

}  // namespace

void ParseOptions(const char* text, Options* options) {
  const std::string all = text;
  for (size_t begin = 0; begin < all.size();) {
    size_t end = all.find(',', begin);
    if (end == std::string::npos) end = all.size();
    ParseOption(all.substr(begin, end - begin), options);
    begin = end + 1;
  }
}

Options& options() {
  static Options* const o = [] {
    auto* const fresh = new Options();
    const char* const text = std::getenv("CUDA_ON_HOST");
    if (text != nullptr) ParseOptions(text, fresh);
    return fresh;
  }();
  return *o;
}

}  // namespace cuda_on_host
