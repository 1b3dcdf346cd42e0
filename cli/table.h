// A Table prints rows of text in aligned columns, for people; and the choice
// between that and JSON that every subcommand with an answer offers.
//
// The widths follow the content alone: no colours, nothing is cut off, no
// white space at line ends, so that the output fits a pipe. Width is counted
// in code points. Value type.

#ifndef LORIKEET_CLI_TABLE_H_
#define LORIKEET_CLI_TABLE_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"

namespace CLI {
class App;
}

namespace lorikeet {

enum class OutputFormat { kTable, kJson };

// Adds --output table|json.
void AddOutputFlag(CLI::App& app, OutputFormat* format);

class Table {
 public:
  enum class Align { kLeft, kRight };
  struct Column {
    std::string title;
    Align align = Align::kLeft;
  };

  explicit Table(std::vector<Column> columns);

  // Cells go through Printable; an empty cell is printed as "-". REQUIRES: one
  // cell per column.
  void AddRow(std::vector<std::string> cells);
  size_t num_rows() const { return rows_.size(); }

  // Returns the header and the rows, a line each.
  std::string ToString() const;

 private:
  const std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

// Returns `text` on one line and safe for a terminal: control characters and
// broken UTF-8 are escaped, "\n" for a line end. Cut to `max_bytes` or so.
std::string Printable(absl::string_view text, size_t max_bytes = 4096);

// Returns for example "3.2 ms", "4.31 s"; three significant digits.
std::string HumanDuration(absl::Duration d);

// Returns `value` with `decimals` digits behind the point.
std::string Fixed(double value, int decimals);

// Writes `text` to stdout.
void Print(absl::string_view text);

}  // namespace lorikeet

#endif  // LORIKEET_CLI_TABLE_H_
