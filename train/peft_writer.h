// Writes what was trained as others read it: a LoRA as the directory that PEFT
// saves, a whole model as a Hugging Face directory.
//
// Pure, but for the disk.

#ifndef LORIKEET_TRAIN_PEFT_WRITER_H_
#define LORIKEET_TRAIN_PEFT_WRITER_H_

#include <string>

#include "absl/status/status.h"
#include "base/file_system.h"
#include "train/train_model.h"
#include "train/training_options.h"

namespace lorikeet {

// Writes adapter_config.json and adapter_model.safetensors (f32) to `dir`,
// which exists.
absl::Status WritePeftAdapter(FileSystem& fs, const std::string& dir,
                              const TrainingOptions& options,
                              const TrainModel& model);

// Writes model.safetensors (f32), config.json and copies of the tokenizer's
// files to `dir`, which exists.
absl::Status WriteTrainedModel(FileSystem& fs, const std::string& dir,
                               const TrainModel& model);

}  // namespace lorikeet

#endif  // LORIKEET_TRAIN_PEFT_WRITER_H_
