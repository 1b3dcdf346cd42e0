#include "cli/table.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <utility>

#include "absl/strings/str_format.h"
#include "base/check.h"
#include "base/text.h"
#include "cli/choice.h"

namespace lorikeet {
namespace {

size_t CountCodePoints(absl::string_view text) {
  return static_cast<size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

}  // namespace

void AddOutputFlag(CLI::App& app, OutputFormat* format) {
  AddChoice<OutputFormat>(
      app, "--output,-o", format,
      {{"table", OutputFormat::kTable}, {"json", OutputFormat::kJson}},
      "table (for people) or json")
      ->type_name("FORMAT")
      ->default_str("table");
}

Table::Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

void Table::AddRow(std::vector<std::string> cells) {
  CHECK_EQ(cells.size(), columns_.size());
  for (std::string& cell : cells) {
    cell = cell.empty() ? "-" : Printable(cell);
  }
  rows_.push_back(std::move(cells));
}

std::string Table::ToString() const {
  std::vector<size_t> widths(columns_.size());
  for (size_t c = 0; c < columns_.size(); ++c) {
    widths[c] = CountCodePoints(columns_[c].title);
    for (const std::vector<std::string>& row : rows_) {
      widths[c] = std::max(widths[c], CountCodePoints(row[c]));
    }
  }
  std::string out;
  const auto add_line = [&](const std::vector<std::string>& cells) {
    std::string line;
    for (size_t c = 0; c < cells.size(); ++c) {
      const std::string padding(widths[c] - CountCodePoints(cells[c]), ' ');
      if (c > 0) line += "  ";
      if (columns_[c].align == Align::kRight) line += padding;
      line += cells[c];
      if (columns_[c].align == Align::kLeft) line += padding;
    }
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  };
  std::vector<std::string> titles;
  for (const Column& column : columns_) titles.push_back(column.title);
  add_line(titles);
  for (const std::vector<std::string>& row : rows_) add_line(row);
  return out;
}

std::string Printable(absl::string_view text, size_t max_bytes) {
  std::string out;
  while (!text.empty() && out.size() < max_bytes) {
    const size_t special = text.find_first_of("\n\t\"\\");
    const absl::string_view plain = text.substr(0, special);
    out += Escape(plain, max_bytes - out.size());
    if (special == absl::string_view::npos) break;
    const char c = text[special];
    out += c == '\n' ? "\\n" : c == '\t' ? "\\t" : std::string(1, c);
    text.remove_prefix(special + 1);
  }
  return out;
}

std::string HumanDuration(absl::Duration d) {
  const double seconds = absl::ToDoubleSeconds(d);
  const auto three_digits = [](double v) {
    return Fixed(v, v < 10 ? 2 : v < 100 ? 1 : 0);
  };
  if (seconds < 0.001) return three_digits(seconds * 1e6) + " us";
  if (seconds < 1) return three_digits(seconds * 1e3) + " ms";
  return three_digits(seconds) + " s";
}

std::string Fixed(double value, int decimals) {
  return absl::StrFormat("%.*f", decimals, value);
}

void Print(absl::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

}  // namespace lorikeet
