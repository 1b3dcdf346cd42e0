#!/usr/bin/env python3
"""Seeds one fault at a time into the CUDA kernels and shows which build of the
emulated device catches it.

    tests/cuda_on_host/seed_faults.py [--build build/release] [--only TEXT]

Each fault is a text replaced in one .cu file. The file is compiled in the fast
and in the checked build and linked with the objects that are there already; the
tests of the operator then run on both: fast in order, in reverse and with some
seeds (only wrong numbers can show), checked in order (findings as well).

A row says: - nothing was noticed, wrong = a test failed on its numbers, found =
the device named a broken rule, crash or hang; . = not run, as the order before
it failed already. Exit code 1 if a fault was caught by no build, or if one was
seen where there is none.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
SEEDS = 3
TIMEOUT_S = 240

# (name, stem of the .cu file, text, replacement, test, filter)
SHRINK = ('lora', '*ShrinkMatches*')
EXPAND = ('lora', '*ExpandMatches*')
BITS = ('lora', '*ARowKeeps*')
GROUP = ('linear_group', '*ARowKeepsItsBits*')  # q, k and v in one launch
ATTENTION = ('attention', '*MatchesReference*')
NORM = ('rms_norm', '*')
PRODUCT = ('gemm', '*MatchesReference*')
PRODUCT_BITS = ('gemm', '*ARowKeepsItsBits*')
SAMPLE = ('sample', '*Draws*:*TopK*:*TopP*:*Penalties*:*ATokenMay*')
BEST = ('sample', '*Greedy*:*Logprob*')
TRAIN_PRODUCT = ('train_product', '*EveryForm*:*LongSums*')
TRAIN_NORMS = ('train_product', '*MergedRow*')
TRAIN_ATTENTION = ('train_attention', '*')
TRAIN_REST = ('train_elementwise', '*')
FAULTS = [
    ('none', 'rms_norm', '  __syncthreads();\n', '  __syncthreads();\n', NORM),
    ('norm: no barrier in the block sum', 'rms_norm',
     '  __syncthreads();\n', '', NORM),
    ('norm: barrier for some warps only', 'rms_norm',
     '  __syncthreads();\n', '  if (warp > 0) __syncthreads();\n', NORM),
    ('norm: two different barriers', 'rms_norm', '  __syncthreads();\n',
     '  if (warp == 0)\n    __syncthreads();\n  else\n    __syncthreads();\n',
     NORM),
    ('norm: shuffle mask too small', 'rms_norm', '  v = WarpSum(v);\n',
     '  for (int o = 16; o > 0; o /= 2)\n'
     '    v += __shfl_xor_sync(0x0000ffffu, v, o);\n', NORM),
    ('norm: shuffle in a divergent branch', 'rms_norm',
     '  v = WarpSum(v);\n', '  if (lane < 16) v = WarpSum(v);\n', NORM),
    ('norm: shared array one short', 'rms_norm',
     'partial, kWarps)', 'partial, kWarps - 1)', NORM),
    ('norm: column bound <= instead of <', 'rms_norm',
     'c < x.cols; c += kThreads * kWidth) {\n    float f[kWidth];',
     'c <= x.cols; c += kThreads * kWidth) {\n    float f[kWidth];', NORM),
    ('norm: misaligned 16-byte load', 'rms_norm',
     'LoadFloatsReadOnly(weight + c, w);',
     'LoadFloatsReadOnly(weight + c - (c > 0 ? 1 : 0), w);', NORM),
    ('norm: same warp reads without a barrier', 'rms_norm',
     '  __syncthreads();\n',
     '  v = partial[warp];\n  __syncthreads();\n  if (v < 0) return v;\n',
     NORM),
    ('norm: all lanes write the same value', 'rms_norm',
     'if (lane == 0) partial[warp] = v;', 'partial[warp] = v;', NORM),
    ('norm: sum over 3 of 4 warps', 'rms_norm', 'i < kWarps; ++i) sum',
     'i < kWarps - 1; ++i) sum', NORM),
    ('norm: read-only load of what is written', 'rms_norm',
     'LoadFloats(in + c, f);  // y may be x',
     'LoadFloatsReadOnly(in + c, f);', NORM),
    ('silu: read-only load of what is written', 'elementwise',
     'LoadFloats(gate.data + row * gate.stride + col, g);',
     'LoadFloatsReadOnly(gate.data + row * gate.stride + col, g);',
     ('elementwise', '*')),
    ('residual: y is not read again', 'elementwise', 'b[i] += a[i]',
     'b[i] = a[i]', ('elementwise', '*')),
    ('rope: half a head too far', 'rope', 'Store(p + half, b * c + a * s);',
     'Store(p + half + 1, b * c + a * s);', ('rope', '*')),
    ('rope: 32 bits of the row', 'rope',
     'float* const p = x.data + row * x.stride + head * head_dim + j;',
     'float* const p = x.data + (row + 1) * x.stride + head * head_dim + j;',
     ('rope', '*')),
    ('kv: rows of nobody are written', 'kv_cache', 'if (at < 0) continue;',
     '', ('kv_cache', '*')),
    ('kv: head and position swapped', 'kv_cache',
     '(head * kv.block_size + offset)', '(offset * kv.kv_heads + head)',
     ('kv_cache', '*')),
    ('embed: tail of a row not masked', 'embed',
     'i < 8 && col + i < y.cols; ++i)', 'i < 8; ++i)', ('embed', '*')),
    ('convert: tail of a row not masked', 'convert',
     'if (col + i < x.cols) f[i]', 'f[i]', ('gemm', '*MatchesReference*')),
    ('convert: padding left as it is', 'convert',
     'if (col >= y.stride) return;',
     'if (col + 8 > x.cols) return;', ('gemm', '*MatchesReference*')),
    ('product: no barrier in the loop', 'gemm',
     '    __syncthreads();\n    if (step + kPlaces', '    if (step + kPlaces',
     PRODUCT),
    ('product: wait off by one', 'gemm', 'CpAsyncWait<kPlaces - 2>()',
     'CpAsyncWait<kPlaces - 1>()', PRODUCT),
    ('product: no commit in the loop', 'gemm',
     'load_step(step + kPlaces - 1);\n    CpAsyncCommit();',
     'load_step(step + kPlaces - 1);', PRODUCT),
    ('product: refill before the barrier', 'gemm',
     '    // Step `step` has landed, and nobody reads the place of the step before.'
     '\n    __syncthreads();\n'
     '    if (step + kPlaces - 1 < steps) load_step(step + kPlaces - 1);\n',
     '    if (step + kPlaces - 1 < steps) load_step(step + kPlaces - 1);\n'
     '    __syncthreads();\n', PRODUCT_BITS),
    ('product: K tail not masked', 'gemm',
     'begin + row < m.rows && k + col < m.cols', 'begin + row < m.rows',
     PRODUCT),
    ('product: rows not masked', 'gemm',
     'begin + row < m.rows && k + col < m.cols', 'k + col < m.cols', PRODUCT),
    ('product: outputs not masked', 'gemm', 'if (out >= w.rows) continue;', '',
     PRODUCT),
    ('product: rows of the store not masked', 'gemm',
     'if (row >= x.rows) continue;', '', PRODUCT),
    ('product: fragments swapped', 'gemm',
     'MmaM16N8K16(sums[m][n], a[m], b[0], b[1]);',
     'MmaM16N8K16(sums[m][n], a[m], b[1], b[0]);', PRODUCT),
    ('product: too little shared memory', 'gemm',
     'dim3(S::kThreads), S::kSharedBytes, stream}',
     'dim3(S::kThreads), S::kSharedBytes - 512, stream}', PRODUCT_BITS),
    ('product: few rows in another order of K', 'gemm',
     'for (int k = 0; k < kStepK; k += 16) {',
     'for (int j = 0; j < kStepK; j += 16) {\n'
     '      const int k = kN == 2 ? kStepK - 16 - j : j;', PRODUCT_BITS),
    ('shrink: no barrier in the stage loop', 'lora_shrink',
     '    CpAsyncWait<kStages - 2>();\n    __syncthreads();\n',
     '    CpAsyncWait<kStages - 2>();\n', SHRINK),
    ('shrink: no wait in the stage loop', 'lora_shrink',
     '    CpAsyncWait<kStages - 2>();\n', '', SHRINK),
    ('shrink: wait off by one', 'lora_shrink', 'CpAsyncWait<kStages - 2>()',
     'CpAsyncWait<kStages - 1>()', SHRINK),
    ('shrink: no commit in the loop', 'lora_shrink',
     'load_stage(step + kStages - 1);\n    CpAsyncCommit();',
     'load_stage(step + kStages - 1);', SHRINK),
    ('shrink: refill before the barrier', 'lora_shrink',
     '    CpAsyncWait<kStages - 2>();\n    __syncthreads();\n'
     '    if (step + kStages - 1 < steps) load_stage(step + kStages - 1);\n'
     '    CpAsyncCommit();\n',
     '    if (step + kStages - 1 < steps) load_stage(step + kStages - 1);\n'
     '    CpAsyncCommit();\n    CpAsyncWait<kStages - 1>();\n'
     '    __syncthreads();\n', SHRINK),
    ('shrink: refill of the place in use', 'lora_shrink',
     'load_stage(step + kStages - 1);\n    CpAsyncCommit();',
     'load_stage(step + kStages);\n    CpAsyncCommit();', SHRINK),
    ('shrink: no barrier before the sums', 'lora_shrink',
     '  __syncthreads();  // the stages become', '  // the stages become',
     SHRINK),
    ('shrink: no barrier after the sums', 'lora_shrink',
     '  __syncthreads();\n  for (int i = threadIdx.x; i < 16 * 16',
     '  for (int i = threadIdx.x; i < 16 * 16', SHRINK),
    ('shrink: row pitch breaks 16 bytes', 'lora_shrink', 'kStageK + 8;',
     'kStageK + 4;', SHRINK),
    ('shrink: too little shared memory', 'lora_shrink',
     'dim3(kThreads), kSharedBytes, stream}',
     'dim3(kThreads), kSharedBytes - 512, stream}', SHRINK),
    ('shrink: K tail not masked', 'lora_shrink',
     'a_row != nullptr && k < k_end', 'a_row != nullptr', SHRINK),
    ('shrink: rank rows not masked', 'lora_shrink',
     'if (tile.rank_begin + copy_row < term->rank_sum) {', 'if (true) {',
     GROUP),
    ('shrink: store not masked by row', 'lora_shrink',
     'if (row >= tile.row_count || rank_row', 'if (rank_row', SHRINK),
    ('shrink: pieces write one slab', 'lora_shrink',
     'partials + int64_t{blockIdx.y} * v_size',
     'partials + int64_t{0} * v_size', SHRINK),
    ('shrink: fragments swapped', 'lora_shrink',
     'MmaM16N8K16(acc[0], a, b[0], b[1]);',
     'MmaM16N8K16(acc[0], a, b[1], b[0]);', SHRINK),
    ('shrink: one lane skips an mma', 'lora_shrink',
     'if (tile.row_count > 8) Mma', 'if (tile.row_count > 8 && lane != 5) Mma',
     SHRINK),
    ('shrink: pieces summed from the second', 'lora_shrink',
     'for (int64_t p = 0; p < pieces; ++p)',
     'for (int64_t p = 1; p < pieces; ++p)', SHRINK),
    ('expand: no barrier after the wait', 'lora_expand',
     '    CpAsyncWait<1>();\n    __syncthreads();\n',
     '    CpAsyncWait<1>();\n', EXPAND),
    ('expand: no barrier before the refill', 'lora_expand',
     '    __syncthreads();  // the place is filled', '    // the place is filled',
     EXPAND),
    ('expand: wait for all but two', 'lora_expand', 'CpAsyncWait<1>()',
     'CpAsyncWait<2>()', EXPAND),
    ('expand: no commit at the end', 'lora_expand',
     '    } else {\n      CpAsyncCommit();\n    }\n', '    }\n', EXPAND),
    ('expand: v beyond the rank is read', 'lora_expand',
     'if (row < tile.row_count && s.k + r < p.rank) {',
     'if (row < tile.row_count) {', EXPAND),
    ('expand: columns not masked', 'lora_expand',
     'if (row >= tile.row_count || col >= y.cols) return nullptr;',
     'if (row >= tile.row_count) return nullptr;', EXPAND),
    ('expand: low half forgotten', 'lora_expand',
     '        MmaM16N8K16(acc[m][0], b, low[0], low[1]);\n', '', EXPAND),
    ('expand: sums not reset between terms', 'lora_expand',
     '            acc[m][n][i] = 0.0f;\n', '', EXPAND),
    ('attention: one key too many', 'attention_partial',
     'return key <= position &&', 'return key <= position + 1 &&', ATTENTION),
    ('attention: window one too wide', 'attention_partial',
     'key > position - args.window', 'key >= position - args.window',
     ATTENTION),
    ('attention: no barrier before the results', 'attention',
     '  __syncthreads();  // the caches become', '  // the caches become',
     ATTENTION),
    ('attention: no barrier before the merge', 'attention',
     '  __syncthreads();\n  for (int i = threadIdx.x; i < kRows * kDim; i += kThreads) {\n    const int m = i / kDim, d = i % kDim;\n    if (!is_used(m) || d',
     '  for (int i = threadIdx.x; i < kRows * kDim; i += kThreads) {\n    const int m = i / kDim, d = i % kDim;\n    if (!is_used(m) || d', ATTENTION),
    ('attention: no barrier before the keys', 'attention',
     '  __syncthreads();\n\n  Bf16* const mine', '\n  Bf16* const mine',
     ATTENTION),
    ('attention: no syncwarp after the wait', 'attention',
     '    CpAsyncWait<1>();\n    __syncwarp();\n', '    CpAsyncWait<1>();\n',
     ATTENTION),
    ('attention: no syncwarp before the refill', 'attention',
     '    __syncwarp();  // the place is filled', '    // the place is filled',
     ATTENTION),
    ('attention: keys beyond the last are loaded', 'attention',
     'const bool has = key < key_end && key >= first_seen && d < dim;',
     'const bool has = key >= first_seen && d < dim;', ATTENTION),
    ('attention: softmax not rescaled', 'attention', 'o[j] *= shrink[j / 2]',
     'o[j] *= 1.0f', ATTENTION),
    ('attention: splits merged from the second', 'attention',
     'for (int s = 0; s < row.z; ++s)', 'for (int s = 1; s < row.z; ++s)',
     ATTENTION),
    ('generic: no barrier before the values', 'attention_generic',
     '    if (lane == 0) totals[warp] = total;\n    __syncthreads();\n',
     '    if (lane == 0) totals[warp] = total;\n', ATTENTION),
    ('sample: no barrier after the bias', 'sample',
     '  }\n  __syncthreads();\n  const bool has_penalty',
     '  }\n  const bool has_penalty', SAMPLE),
    ('sample: ties kept from the second', 'sample', '++seen == n',
     'seen++ == n', SAMPLE),
    ('sample: no barrier around the walk', 'sample',
     '    scratch.tile[threadIdx.x] = weight;\n    __syncthreads();\n',
     '    scratch.tile[threadIdx.x] = weight;\n', SAMPLE),
    ('reduce: scratch reused without a barrier', 'block_reduce',
     '  __syncthreads();\n  return all;', '  return all;', SAMPLE),
    ('reduce: last warp left out', 'block_reduce', 'w < warps; ++w)',
     'w < warps - 1; ++w)', BEST),
    ('logprobs: the best is its own next', 'logprobs',
     'IsBetter(previous, other) && ', '', BEST),
    ('merge: the gain of another row', 'merge_rows',
     'LoadReadOnly(gain + row)', 'LoadReadOnly(gain + row + 1)',
     ('merge', '*Gives*')),
    ('train: strips read before they are there', 'train/product',
     '    b.Store(b_s);\n    __syncthreads();\n', '    b.Store(b_s);\n',
     TRAIN_PRODUCT),
    ('train: strips overwritten too early', 'train/product',
     '    __syncthreads();\n  }\n#pragma unroll\n  for (int i = 0; i < S::kM',
     '  }\n#pragma unroll\n  for (int i = 0; i < S::kM', TRAIN_PRODUCT),
    ('train: pieces added from the second', 'train/product',
     'for (int32_t p = 0; p < pieces', 'for (int32_t p = 1; p < pieces',
     TRAIN_PRODUCT),
    ('train: end of a piece not masked', 'train/product',
     ' && k_begin + k < k_end;', ';', TRAIN_PRODUCT),
    ('train: columns of c not masked', 'train/product',
     'if (row >= args.c.rows || col >= args.c.cols) continue;',
     'if (row >= args.c.rows) continue;', TRAIN_PRODUCT),
    ('train: tiles overwritten too early', 'train/attention',
     '    __syncthreads();  // nobody reads the tiles before\n', '',
     TRAIN_ATTENTION),
    ('train: scores read before they are there', 'train/attention',
     '    __syncthreads();\n    AddProduct<kHeadDim>(p, v',
     '    AddProduct<kHeadDim>(p, v', TRAIN_ATTENTION),
    ('train: sum of scores not rescaled', 'train/attention',
     'fmaf(sum[i], keep, added)', 'sum[i] + added', TRAIN_ATTENTION),
    ('train: first tile of a window skipped', 'train/attention_tile',
     '(seen - queries.begin) / rows * rows',
     '(seen - queries.begin + rows - 1) / rows * rows', TRAIN_ATTENTION),
    ('train: rows beyond a sequence', 'train/attention_tile',
     'row + r < end ? ', 'r < S::kRows ? ', TRAIN_ATTENTION),
    ('train: a query does not see itself', 'train/attention_tile',
     'key <= query', 'key < query', TRAIN_ATTENTION),
    ('train: ds without what is along', 'train/attention_backward',
     '(dy_v - rows.along[query])', 'dy_v', TRAIN_ATTENTION),
    ('train: one head of a group for dk', 'train/attention_backward',
     'head < (kv_head + 1) * group', 'head < kv_head * group + 1',
     TRAIN_ATTENTION),
    ('train: queries of a window too few', 'train/attention_backward',
     'last = tile.row + S::kRows - 1 + args.window;',
     'last = tile.row + args.window;', TRAIN_ATTENTION),
    ('train: gradients of scores read too early', 'train/attention_backward',
     '      __syncthreads();\n      AddProduct<kHeadDim>(p, dy',
     '      AddProduct<kHeadDim>(p, dy', TRAIN_ATTENTION),
    ('train: norm squared instead of cubed', 'train/norm', '* r * r * r / cols',
     '* r * r / cols', TRAIN_REST),
    ('train: dy read as what nobody writes', 'train/norm',
     'weight + c) * Load(g + c) -', 'weight + c) * LoadReadOnly(g + c) -',
     TRAIN_REST),
    ('train: warps of a column not awaited', 'train/columns',
     '  sums[threadIdx.x] = sum;\n  __syncthreads();\n',
     '  sums[threadIdx.x] = sum;\n', TRAIN_REST),
    ('train: first row of a token left out', 'train/columns',
     'int32_t r = LoadReadOnly(begins + i);',
     'int32_t r = LoadReadOnly(begins + i) + 1;', TRAIN_REST),
    ('train: dropout of another bit', 'train/elementwise', '(words[i] >> 8)',
     '(words[i] >> 7)', TRAIN_REST),
    ('train: the target is overwritten too early', 'train/loss',
     '  __syncthreads();  // the target\'s logit was read\n', '', TRAIN_REST),
    ('train: no correction of the second moment', 'train/optimizer',
     ' * args.inverse_root', '', TRAIN_REST),
    ('train: one number of the next tile', 'train/optimizer',
     'i < end; i += kThreads', 'i <= end; i += kThreads', TRAIN_REST),
    ('train: norm without the scale', 'train/merged_rows',
     'fmaf(scale, delta, LoadF32(from + k))', 'delta + LoadF32(from + k)',
     TRAIN_NORMS),
]


def ninja_commands(build, target):
    out = subprocess.run(['ninja', '-C', build, '-t', 'commands', target],
                         check=True, capture_output=True, text=True).stdout
    return out.splitlines()


class Variant:
    """One build of the plug-in: how its kernels are compiled and linked."""

    def __init__(self, build, name):
        self.build = build
        self.name = name
        self.library = f'liblorikeet_cuda_on_host_{name}.so'
        commands = ninja_commands(build, self.library)
        self.link = commands[-1]
        self.compile = {}
        for c in commands:
            match = re.search(r'-c \S*kernels/cuda/([\w/]+)\.cu$', c)
            if match and f'lorikeet_cuda_kernels_{name}' in c:
                self.compile[match.group(1)] = c

    def make(self, stems, sources, out):
        """Builds the library with other sources for some kernels."""
        link = self.link
        for stem in stems:
            command = self.compile[stem]
            original = re.search(r' -o (\S+)', command).group(1)
            mutated = f'{out}/{stem.replace("/", "_")}.{self.name}.o'
            command = command.replace(f'-c {ROOT}/kernels/cuda/{stem}.cu',
                                      f'-c {sources}/kernels/cuda/{stem}.cu')
            command = command.replace(f'-o {original}', f'-o {mutated}')
            command = command.replace(f'-I{ROOT} ',
                                      f'-I{sources} -I{ROOT} ', 1)
            command = re.sub(r' -MD -MT \S+ -MF \S+', '', command)
            command = command.replace('-Werror', '-w')
            subprocess.run(command, shell=True, check=True, cwd=self.build)
            link = link.replace(original, mutated)
        link = link.replace(f'-o {self.library}', f'-o {out}/{self.library}')
        subprocess.run(link, shell=True, check=True, cwd=self.build,
                       stdout=subprocess.DEVNULL)


def test_program(build, name):
    folder = 'train/' if name.startswith('train_') else ''
    return f'{build}/tests/kernels/{folder}kernels_{name}_test'


def run(build, out, variant, test, options):
    name, pattern = test
    tests = ':'.join(p + 'cuda_on_host*' for p in pattern.split(':'))
    env = dict(os.environ, LORIKEET_BINARY_DIR=out, CUDA_ON_HOST=options,
               LORIKEET_CUDA_ON_HOST_BUILD=variant)
    try:
        p = subprocess.run(
            [test_program(build, name),
             f'--gtest_filter={tests}'], env=env, capture_output=True,
            text=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return 'hang', ''
    text = p.stdout + p.stderr
    finding = re.search(
        r'^(race|warp mask|warp divergence|barrier divergence|deadlock|'
        r'out of bounds|misaligned|uninitialised|cp\.async|read-only load|'
        r'local memory|host pointer): .*', text, re.M)
    if finding:
        return 'found', finding.group(0)
    if p.returncode == 0:
        return '-', ''
    return ('wrong' if p.returncode == 1 else 'crash'), ''


def mutate(stem, old, new, sources):
    """Writes the mutated file; returns the kernels that have to be compiled."""
    kernels = ROOT / 'kernels' / 'cuda'
    copies = pathlib.Path(sources, 'kernels', 'cuda')
    path = kernels / f'{stem}.cu'
    if not path.exists():
        path = path.with_suffix('.h')
    text = path.read_text()
    if old not in text:
        raise SystemExit(f'{path.name} has no longer: {old!r}')

    def write(name, text):
        copy = copies / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(text)

    name = path.relative_to(kernels)
    write(name, text.replace(old, new, 1))
    if path.suffix == '.cu':
        return [stem]
    stems = []
    for kernel in sorted(kernels.rglob('*.cu')):
        text = kernel.read_text()
        if f'kernels/cuda/{name}' in text:
            kernel_name = kernel.relative_to(kernels)
            write(kernel_name, text)
            stems.append(str(kernel_name.with_suffix('')))
    return stems


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--build', default=str(ROOT / 'build' / 'release'))
    parser.add_argument('--only', default='', help='faults with this text')
    args = parser.parse_args()
    build = str(pathlib.Path(args.build).resolve())
    variants = [Variant(build, 'fast'), Variant(build, 'checked')]
    missed, rows = [], []
    print(f'{"seeded fault":44} order  revers random checked  what it says')
    for name, stem, old, new, test in FAULTS:
        if args.only not in name and name != 'none':
            continue
        with tempfile.TemporaryDirectory() as out:
            stems = mutate(stem, old, new, f'{out}/src')
            for variant in variants:
                variant.make(stems, f'{out}/src', out)
            order, said = run(build, out, 'fast', test, '')
            reverse = random = '.'
            if order == '-':
                reverse, _ = run(build, out, 'fast', test, 'schedule=reverse')
            if order == '-' and reverse == '-':
                for seed in range(1, SEEDS + 1):
                    random, _ = run(
                        build, out, 'fast', test,
                        f'schedule=random,streams=random,seed={seed}')
                    if random != '-':
                        break
            checked, text = run(build, out, 'checked', test, '')
        results = [order, reverse, random, checked]
        print(f'{name:44} {order:6} {reverse:6} {random:6} {checked:8} '
              f'{(text or said)[:100]}', flush=True)
        rows.append({'fault': name, 'order': order, 'reverse': reverse,
                     'random': random, 'checked': checked,
                     'finding': text or said})
        is_caught = any(r not in '-.' for r in results)
        if name == 'none':
            if is_caught:
                raise SystemExit('the tests fail without a fault')
            rows.pop()
        elif not is_caught:
            missed.append(name)
    caught = len(rows) - len(missed)
    print(f'{caught} of {len(rows)} caught by at least one build')
    for name in missed:
        print(f'missed: {name}')
    pathlib.Path(build, 'seeded_faults.json').write_text(
        json.dumps(rows, indent=1))
    return 1 if missed else 0


if __name__ == '__main__':
    sys.exit(main())
