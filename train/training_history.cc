#include "train/training_history.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/check.h"
#include "base/status.h"

namespace lorikeet {
namespace {

// The picture, in pixels.
constexpr double kWidth = 720, kHeight = 400;
constexpr double kLeft = 60, kRight = 20, kTop = 30, kBottom = 45;
constexpr int kGridLines = 5;
// Weight of the past in the running mean: about ten steps.
constexpr double kMemory = 0.9;

// Numbers with their fewest digits, as in JSON.
std::string Number(double value) { return Json(value).Dump(); }

// From data to pixels.
struct Axes {
  double max_step = 1;
  double max_loss = 1;

  double X(double step) const {
    return kLeft + step / max_step * (kWidth - kLeft - kRight);
  }
  double Y(double loss) const {
    return kHeight - kBottom - loss / max_loss * (kHeight - kTop - kBottom);
  }
};

std::string Grid(const Axes& axes) {
  std::string svg;
  for (int i = 0; i <= kGridLines; ++i) {
    const double share = static_cast<double>(i) / kGridLines;
    const double loss = share * axes.max_loss;
    const double step = std::round(share * axes.max_step);
    absl::StrAppendFormat(
        &svg,
        "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" "
        "stroke=\"#ddd\"/>\n<text x=\"%.1f\" y=\"%.1f\" "
        "text-anchor=\"end\">%.3g</text>\n<text x=\"%.1f\" y=\"%.1f\" "
        "text-anchor=\"middle\">%.0f</text>\n",
        kLeft, axes.Y(loss), kWidth - kRight, axes.Y(loss), kLeft - 6,
        axes.Y(loss) + 4, loss, axes.X(step), kHeight - kBottom + 18, step);
  }
  absl::StrAppendFormat(&svg,
                        "<text x=\"%.1f\" y=\"%.1f\" "
                        "text-anchor=\"middle\">step</text>\n",
                        (kLeft + kWidth - kRight) / 2, kHeight - 8);
  return svg;
}

std::string Legend(bool has_evals) {
  std::string svg = absl::StrFormat(
      "<text x=\"%.1f\" y=\"18\" fill=\"#1f77b4\">loss per target token, "
      "dots: steps, line: running mean</text>\n",
      kLeft);
  if (has_evals) {
    absl::StrAppendFormat(&svg,
                          "<text x=\"%.1f\" y=\"18\" text-anchor=\"end\" "
                          "fill=\"#d62728\">evaluation</text>\n",
                          kWidth - kRight);
  }
  return svg;
}

absl::StatusOr<double> Member(const Json& row, size_t index) {
  if (!row.is_array() || row.items().size() <= index ||
      !row.items()[index].is_number()) {
    return absl::InvalidArgumentError("history has a row that is none");
  }
  return row.items()[index].AsDouble();
}

absl::StatusOr<int64_t> Integer(const Json& row, size_t index) {
  ASSIGN_OR_RETURN(const double value, Member(row, index));
  return static_cast<int64_t>(value);
}

}  // namespace

std::string TrainingHistory::ToCsv() const {
  std::string csv =
      "step,loss,learning_rate,gradient_norm,tokens,targets,eval_loss,"
      "eval_exact_match\n";
  auto eval = evals.begin();
  const auto add_eval = [&](int64_t step) {
    while (eval != evals.end() && eval->step < step) ++eval;
    if (eval == evals.end() || eval->step != step) return std::string(",,\n");
    return absl::StrCat(",", Number(eval->loss), ",", Number(eval->exact_match),
                        "\n");
  };
  if (!evals.empty() && evals.front().step == 0) {
    absl::StrAppend(&csv, "0,,,,,", add_eval(0));
  }
  for (const StepReport& s : steps) {
    absl::StrAppend(&csv, s.step, ",", Number(s.loss), ",",
                    Number(s.learning_rate), ",", Number(s.gradient_norm), ",",
                    s.tokens, ",", s.targets, add_eval(s.step));
  }
  return csv;
}

std::string TrainingHistory::ToSvg() const {
  CHECK(!steps.empty());
  Axes axes;
  axes.max_step = static_cast<double>(steps.back().step);
  axes.max_loss = 1e-3;
  for (const StepReport& s : steps) {
    axes.max_loss = std::max(axes.max_loss, s.loss);
  }
  for (const EvalPoint& e : evals) {
    axes.max_loss = std::max(axes.max_loss, e.loss);
  }
  axes.max_loss *= 1.05;
  std::string svg = absl::StrFormat(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%.0f\" "
      "height=\"%.0f\" font-family=\"sans-serif\" font-size=\"12\">\n"
      "<rect width=\"100%%\" height=\"100%%\" fill=\"white\"/>\n",
      kWidth, kHeight);
  absl::StrAppend(&svg, Grid(axes), Legend(!evals.empty()));
  std::string mean_line;
  double mean = steps.front().loss;
  for (const StepReport& s : steps) {
    mean = kMemory * mean + (1 - kMemory) * s.loss;
    const double x = axes.X(static_cast<double>(s.step));
    absl::StrAppendFormat(&svg,
                          "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"1.5\" "
                          "fill=\"#aec7e8\"/>\n",
                          x, axes.Y(s.loss));
    absl::StrAppendFormat(&mean_line, "%.1f,%.1f ", x, axes.Y(mean));
  }
  absl::StrAppend(&svg,
                  "<polyline fill=\"none\" stroke=\"#1f77b4\" "
                  "stroke-width=\"1.5\" points=\"",
                  mean_line, "\"/>\n");
  for (const EvalPoint& e : evals) {
    absl::StrAppendFormat(
        &svg,
        "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\" fill=\"#d62728\">"
        "<title>step %d: loss %.4g, exact match %.4g</title></circle>\n",
        axes.X(static_cast<double>(e.step)), axes.Y(e.loss), e.step, e.loss,
        e.exact_match);
  }
  absl::StrAppend(&svg, "</svg>\n");
  return svg;
}

Json TrainingHistory::ToJson() const {
  Json step_rows = Json::Array();
  for (const StepReport& s : steps) {
    Json row = Json::Array();
    row.Append(s.step);
    row.Append(s.loss);
    row.Append(s.learning_rate);
    row.Append(s.gradient_norm);
    row.Append(s.tokens);
    row.Append(s.targets);
    step_rows.Append(std::move(row));
  }
  Json eval_rows = Json::Array();
  for (const EvalPoint& e : evals) {
    Json row = Json::Array();
    row.Append(e.step);
    row.Append(e.loss);
    row.Append(e.exact_match);
    eval_rows.Append(std::move(row));
  }
  Json json = Json::Object();
  json.Set("steps", std::move(step_rows));
  json.Set("evals", std::move(eval_rows));
  return json;
}

absl::StatusOr<TrainingHistory> TrainingHistory::FromJson(const Json& json) {
  const Json* steps = json.Find("steps");
  const Json* evals = json.Find("evals");
  if (steps == nullptr || !steps->is_array() || evals == nullptr ||
      !evals->is_array()) {
    return absl::InvalidArgumentError("history has no steps or evals");
  }
  TrainingHistory history;
  for (const Json& row : steps->items()) {
    StepReport s;
    ASSIGN_OR_RETURN(s.step, Integer(row, 0));
    ASSIGN_OR_RETURN(s.loss, Member(row, 1));
    ASSIGN_OR_RETURN(s.learning_rate, Member(row, 2));
    ASSIGN_OR_RETURN(s.gradient_norm, Member(row, 3));
    ASSIGN_OR_RETURN(s.tokens, Integer(row, 4));
    ASSIGN_OR_RETURN(s.targets, Integer(row, 5));
    history.steps.push_back(s);
  }
  for (const Json& row : evals->items()) {
    EvalPoint e;
    ASSIGN_OR_RETURN(e.step, Integer(row, 0));
    ASSIGN_OR_RETURN(e.loss, Member(row, 1));
    ASSIGN_OR_RETURN(e.exact_match, Member(row, 2));
    history.evals.push_back(e);
  }
  return history;
}

}  // namespace lorikeet
