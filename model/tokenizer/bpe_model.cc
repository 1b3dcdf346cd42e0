#include "model/tokenizer/bpe_model.h"

#include <algorithm>
#include <queue>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/status.h"
#include "base/text.h"
#include "model/tokenizer/byte_alphabet.h"
#include "model/tokenizer/utf8.h"

namespace lorikeet {
namespace {

constexpr Token kNoToken = -1;
constexpr int32_t kNoRank = INT32_MAX;

// Up to this many symbols a scan for the lowest rank is faster than a heap.
constexpr size_t kShortPiece = 40;

constexpr absl::string_view kWordStart = "\xE2\x96\x81";  // U+2581

uint64_t PairKey(Token left, Token right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 |
         static_cast<uint32_t>(right);
}

// A merge that was possible when it was put on the heap.
struct Candidate {
  int32_t rank;
  int32_t position;
  Token id;
  // The heap gives the greatest: the lowest rank, then the leftmost.
  friend bool operator<(const Candidate& a, const Candidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
  }
};

}  // namespace

absl::StatusOr<BpeModel> BpeModel::FromJson(const Json& model,
                                            bool byte_level) {
  if (!model.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat("model is ", model.TypeName(), ", expected an object"));
  }
  JsonReader reader(model, "model");
  // Files older than the field have a BPE.
  ASSIGN_OR_RETURN(const std::string type, reader.String("type", "BPE"));
  if (type != "BPE") {
    return absl::UnimplementedError(absl::StrCat(
        "model has the unsupported type ", Quote(type), " (supported: BPE)"));
  }
  BpeModel result;
  result.byte_level_ = byte_level;
  RETURN_IF_ERROR(result.ReadVocabulary(model));
  RETURN_IF_ERROR(result.ReadOptions(model));
  RETURN_IF_ERROR(result.ReadMerges(model));
  result.FindWordStarts();
  return result;
}

absl::Status BpeModel::ReadOptions(const Json& model) {
  JsonReader reader(model, "model");
  ASSIGN_OR_RETURN(byte_fallback_, reader.Bool("byte_fallback", false));
  ASSIGN_OR_RETURN(fuse_unk_, reader.Bool("fuse_unk", false));
  ASSIGN_OR_RETURN(ignore_merges_, reader.Bool("ignore_merges", false));
  ASSIGN_OR_RETURN(subword_prefix_,
                   reader.String("continuing_subword_prefix", ""));
  ASSIGN_OR_RETURN(word_suffix_, reader.String("end_of_word_suffix", ""));
  ASSIGN_OR_RETURN(const double dropout, reader.Double("dropout", 0, 0, 1));
  if (dropout > 0) {
    return absl::UnimplementedError(absl::StrCat("model field \"dropout\" is ",
                                                 dropout, ": random merges"));
  }
  if (reader.Get("unk_token") != nullptr) {
    ASSIGN_OR_RETURN(const std::string unk, reader.String("unk_token", ""));
    unk_ = TokenId(unk);
    if (!unk_.has_value()) {
      return reader.Error(
          "unk_token", absl::StrCat("is ", Quote(unk), ", which is no entry"));
    }
  }
  return absl::OkStatus();
}

absl::Status BpeModel::ReadVocabulary(const Json& model) {
  JsonReader reader(model, "model");
  const Json* vocabulary = reader.Get("vocab");
  if (vocabulary == nullptr) return reader.Error("vocab", "is missing");
  if (!vocabulary->is_object()) {
    return reader.Error("vocab", absl::StrCat("is ", vocabulary->TypeName(),
                                              ", expected an object"));
  }
  Token highest = -1;
  for (const auto& [text, id] : vocabulary->members()) {
    if (!id.is_int() || id.AsInt() < 0 || id.AsInt() > kMaxId) {
      return reader.Error(
          absl::StrCat("vocab.", text),
          absl::StrCat("is ", Escape(id.Dump(), 40),
                       ", expected an integer in [0, ", kMaxId, "]"));
    }
    highest = std::max(highest, static_cast<Token>(id.AsInt()));
  }
  texts_.resize(static_cast<size_t>(highest + 1));
  has_text_.resize(texts_.size());
  ids_.reserve(vocabulary->members().size());
  for (const auto& [text, id] : vocabulary->members()) {
    const auto index = static_cast<size_t>(id.AsInt());
    if (has_text_[index]) {
      return reader.Error(absl::StrCat("vocab.", text),
                          absl::StrCat("is ", id.AsInt(), ", the id of ",
                                       Quote(texts_[index])));
    }
    has_text_[index] = true;
    texts_[index] = text;
    ids_.emplace(texts_[index], static_cast<Token>(index));
  }
  for (int b = 0; b < 256; ++b) {
    const auto i = static_cast<uint8_t>(b);
    byte_ids_[i] = TokenId(ByteAlphabetCharacter(i)).value_or(kNoToken);
    fallback_ids_[i] =
        TokenId(absl::StrFormat("<0x%02X>", b)).value_or(kNoToken);
  }
  return absl::OkStatus();
}

absl::Status BpeModel::ReadMerges(const Json& model) {
  JsonReader reader(model, "model");
  const Json* merges = reader.Get("merges");
  if (merges == nullptr) return reader.Error("merges", "is missing");
  if (!merges->is_array()) {
    return reader.Error(
        "merges", absl::StrCat("is ", merges->TypeName(), ", expected a list"));
  }
  merges_.reserve(merges->items().size());
  size_t rank = 0;
  for (size_t i = 0; i < merges->items().size(); ++i) {
    const Json& merge = merges->items()[i];
    const auto invalid = [&] {
      return reader.Error(absl::StrCat("merges[", i, "]"),
                          absl::StrCat("is ", Escape(merge.Dump(), 80),
                                       ", expected \"a b\" or [\"a\", \"b\"]"));
    };
    if (merge.is_string()) {
      if (absl::StartsWith(merge.AsString(), "#version")) continue;
      const std::vector<absl::string_view> parts =
          absl::StrSplit(merge.AsString(), ' ');
      if (parts.size() != 2) return invalid();
      RETURN_IF_ERROR(AddMerge(rank++, parts[0], parts[1]));
    } else {
      if (!merge.is_array() || merge.items().size() != 2 ||
          !merge.items()[0].is_string() || !merge.items()[1].is_string()) {
        return invalid();
      }
      RETURN_IF_ERROR(AddMerge(rank++, merge.items()[0].AsString(),
                               merge.items()[1].AsString()));
    }
  }
  return absl::OkStatus();
}

absl::Status BpeModel::AddMerge(size_t rank, absl::string_view left,
                                absl::string_view right) {
  const auto find = [&](absl::string_view text) -> absl::StatusOr<Token> {
    const std::optional<Token> id = TokenId(text);
    if (id.has_value()) return *id;
    return absl::InvalidArgumentError(
        absl::StrCat("model field \"merges[", rank, "]\" needs ", Quote(text),
                     ", which is no entry of \"vocab\""));
  };
  ASSIGN_OR_RETURN(const Token left_id, find(left));
  ASSIGN_OR_RETURN(const Token right_id, find(right));
  if (right.size() < subword_prefix_.size()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "model field \"merges[", rank, "]\" has the part ", Quote(right),
        ", which is shorter than continuing_subword_prefix"));
  }
  ASSIGN_OR_RETURN(
      const Token id,
      find(absl::StrCat(left, right.substr(subword_prefix_.size()))));
  // A pair that stands twice has its last rank.
  merges_[PairKey(left_id, right_id)] = {static_cast<int32_t>(rank), id};
  return absl::OkStatus();
}

// If "▁" never comes right behind another symbol of a merge, then no merge
// crosses the start of a run of "▁", and the runs can be merged on their own.
void BpeModel::FindWordStarts() {
  const std::optional<Token> start = TokenId(kWordStart);
  if (!start.has_value()) return;
  for (const auto& [key, merge] : merges_) {
    const std::string& text = texts_[static_cast<size_t>(merge.id)];
    // Only a run at the very start may hold it.
    absl::string_view rest = text;
    while (absl::ConsumePrefix(&rest, kWordStart)) {
    }
    if (absl::StrContains(rest, kWordStart)) return;
  }
  word_start_ = *start;
}

std::optional<Token> BpeModel::TokenId(absl::string_view text) const {
  const auto it = ids_.find(text);
  if (it == ids_.end()) return std::nullopt;
  return it->second;
}

std::optional<absl::string_view> BpeModel::TokenText(Token id) const {
  if (id < 0 || id >= id_limit() || !has_text_[static_cast<size_t>(id)]) {
    return std::nullopt;
  }
  return texts_[static_cast<size_t>(id)];
}

const BpeModel::Merge* BpeModel::FindMerge(Token left, Token right) const {
  const auto it = merges_.find(PairKey(left, right));
  return it == merges_.end() ? nullptr : &it->second;
}

void BpeModel::Encode(absl::string_view piece, std::vector<Token>* out) const {
  if (piece.empty()) return;
  if (ignore_merges_) {
    const std::optional<Token> whole =
        TokenId(byte_level_ ? ToByteAlphabet(piece) : std::string(piece));
    if (whole.has_value()) {
      out->push_back(*whole);
      return;
    }
  }
  std::vector<Token> ids =
      byte_level_ && subword_prefix_.empty() && word_suffix_.empty() &&
              !byte_fallback_ && !unk_.has_value()
          ? InitialBytes(piece)
          : InitialCodePoints(byte_level_ ? ToByteAlphabet(piece)
                                          : std::string(piece));
  size_t begin = 0;
  for (size_t i = 1; i < ids.size(); ++i) {
    if (ids[i] != word_start_ || ids[i - 1] == word_start_) continue;
    MergeAll(ids.data() + begin, i - begin, out);
    begin = i;
  }
  MergeAll(ids.data() + begin, ids.size() - begin, out);
}

std::vector<Token> BpeModel::InitialBytes(absl::string_view piece) const {
  std::vector<Token> ids;
  ids.reserve(piece.size());
  for (const char c : piece) {
    const Token id = byte_ids_[static_cast<uint8_t>(c)];
    if (id != kNoToken) ids.push_back(id);
  }
  return ids;
}

bool BpeModel::AppendByteTokens(absl::string_view text,
                                std::vector<Token>* out) const {
  const auto id = [&](char c) {
    return fallback_ids_[static_cast<uint8_t>(c)];
  };
  for (const char c : text) {
    if (id(c) == kNoToken) return false;
  }
  for (const char c : text) out->push_back(id(c));
  return true;
}

// As in the library we follow, an unknown token waits until the next entry of
// the vocabulary: byte tokens in between come out before it.
std::vector<Token> BpeModel::InitialCodePoints(absl::string_view piece) const {
  std::vector<Token> ids;
  ids.reserve(piece.size());
  bool unknown_waits = false;
  std::string text;
  for (size_t i = 0; i < piece.size();) {
    const size_t length = Utf8Length(piece[i]);
    text.clear();
    if (i > 0) text += subword_prefix_;
    text.append(piece.data() + i, length);
    i += length;
    if (i == piece.size()) text += word_suffix_;
    if (const std::optional<Token> id = TokenId(text); id.has_value()) {
      if (unknown_waits) ids.push_back(*unk_);
      unknown_waits = false;
      ids.push_back(*id);
    } else if (byte_fallback_ && AppendByteTokens(text, &ids)) {
      continue;
    } else if (unk_.has_value()) {
      if (unknown_waits && !fuse_unk_) ids.push_back(*unk_);
      unknown_waits = true;
    }
  }
  if (unknown_waits) ids.push_back(*unk_);
  return ids;
}

void BpeModel::MergeAll(Token* ids, size_t count,
                        std::vector<Token>* out) const {
  if (count <= 1) {
    out->insert(out->end(), ids, ids + count);
  } else if (count <= kShortPiece) {
    MergeShort(ids, count, out);
  } else {
    MergeLong(ids, count, out);
  }
}

void BpeModel::MergeShort(Token* ids, size_t count,
                          std::vector<Token>* out) const {
  // merge[i] is that of ids[i] and ids[i + 1].
  std::array<Merge, kShortPiece> merge;
  const auto look_up = [&](size_t i) {
    const Merge* found = FindMerge(ids[i], ids[i + 1]);
    merge[i] = found != nullptr ? *found : Merge{kNoRank, kNoToken};
  };
  for (size_t i = 0; i + 1 < count; ++i) look_up(i);
  while (count > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < count; ++i) {
      if (merge[i].rank < merge[best].rank) best = i;
    }
    if (merge[best].rank == kNoRank) break;
    ids[best] = merge[best].id;
    for (size_t i = best + 1; i + 1 < count; ++i) {
      ids[i] = ids[i + 1];
      merge[i] = merge[i + 1];
    }
    --count;
    if (best + 1 < count) look_up(best);
    if (best > 0) look_up(best - 1);
  }
  out->insert(out->end(), ids, ids + count);
}

// The symbols are a linked list in place; a candidate on the heap is stale if
// the pair at its position has another merge by now.
void BpeModel::MergeLong(const Token* ids, size_t count,
                         std::vector<Token>* out) const {
  std::vector<Symbol> symbols(count);
  std::vector<Candidate> candidates;
  candidates.reserve(count);
  const auto merge_at = [&](int32_t i) -> const Merge* {
    const Symbol& left = symbols[static_cast<size_t>(i)];
    if (left.id == kNoToken || left.next < 0) return nullptr;
    return FindMerge(left.id, symbols[static_cast<size_t>(left.next)].id);
  };
  for (size_t i = 0; i < count; ++i) {
    const auto index = static_cast<int32_t>(i);
    symbols[i] = {ids[i], index - 1, i + 1 < count ? index + 1 : -1};
  }
  for (int32_t i = 0; i < static_cast<int32_t>(count); ++i) {
    if (const Merge* merge = merge_at(i); merge != nullptr) {
      candidates.push_back({merge->rank, i, merge->id});
    }
  }
  std::priority_queue<Candidate> queue({}, std::move(candidates));
  const auto push = [&](int32_t i) {
    if (i < 0) return;
    const Merge* merge = merge_at(i);
    if (merge != nullptr) queue.push({merge->rank, i, merge->id});
  };
  while (!queue.empty()) {
    const Candidate top = queue.top();
    queue.pop();
    const Merge* merge = merge_at(top.position);
    if (merge == nullptr || merge->id != top.id) continue;
    Symbol& left = symbols[static_cast<size_t>(top.position)];
    Symbol& right = symbols[static_cast<size_t>(left.next)];
    left.id = top.id;
    left.next = right.next;
    right.id = kNoToken;  // gone
    if (left.next >= 0) {
      symbols[static_cast<size_t>(left.next)].previous = top.position;
    }
    push(left.previous);
    push(top.position);
  }
  for (int32_t i = 0; i >= 0; i = symbols[static_cast<size_t>(i)].next) {
    out->push_back(symbols[static_cast<size_t>(i)].id);
  }
}

}  // namespace lorikeet
