// The native engine: sparse convolution and batch normalisation on the CPU, called from native.py by ctypes.
//
// Pairs, not tables. A block of output rows takes the offsets in turn: the input rows of the offset's existing pairs
// are copied side by side, multiplied by the offset's weights in tiles that live in registers, and each tile's rows
// are added to the sums of their output rows. Inputs, sums and weights of a block fit into a core's second cache,
// so no product with an absent neighbour is ever computed and no intermediate result travels to memory.
//
// The same bits on any number of threads. Every number is made by one thread, in an order that the map alone fixes;
// the constants that take part in it (SUMMED_PAIRS, SUMMED_ROWS, NORM_ROWS) depend neither on the threads nor on
// the processor, so AVX2, AVX-512 and NEON agree too. SSE, which cannot fuse, differs in the last bits.
//
// Only the compiler's vector extensions, so one source serves every processor; no allocation, no exception, no C++
// library at run time. The one thread pool is torch's own OpenMP runtime: this file is linked without any.

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <utility>

extern "C" int omp_get_thread_num();

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16, REGISTERS = 32;
constexpr const char* VARIANT = "AVX-512";
#elif defined(__AVX2__) && defined(__FMA__)
constexpr int LANES = 8, REGISTERS = 16;
constexpr const char* VARIANT = "AVX2";
#elif defined(__aarch64__)
constexpr int LANES = 4, REGISTERS = 32;
constexpr const char* VARIANT = "NEON";
#else
constexpr int LANES = 4, REGISTERS = 16;
constexpr const char* VARIANT = "128 bits";
#endif

constexpr int PANEL = 2 * LANES;                // columns of weights that a tile works on
constexpr int TILE_ROWS = (REGISTERS - 3) / 2;  // 2 accumulators a row; 2 registers of weights, 1 of input are left
constexpr int SUM_CHANNELS = REGISTERS / 4;     // rows of a tile of the kernel's gradient; divides CHUNK
constexpr int CHUNK = 16;                       // channels of one pair that lie together once gathered: a cache line
constexpr int THIN = 4;                         // up to so many input channels, weights stay in registers
constexpr int SUMMED_PAIRS = 128;               // of the kernel's gradient: so many in registers, then to memory
constexpr int64_t BLOCK_ROWS = 128;             // output rows whose sums, inputs and weights fit into the second cache
constexpr int64_t SUMMED_ROWS = 4096;           // output rows whose two operands stay in the cache for all offsets
constexpr int64_t NORM_ROWS = 256, RUN = 32;    // of one partial sum of a batch norm; of one in float32
constexpr int AHEAD = 12;                       // pairs between a row's prefetch and its use

using Vector = float __attribute__((vector_size(LANES * sizeof(float))));
using Unaligned = float __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));
using Doubles = double __attribute__((vector_size(LANES * sizeof(double))));
using Line = float __attribute__((vector_size(CHUNK * sizeof(float)), aligned(4), may_alias));

inline Vector load(const float* from) { return *reinterpret_cast<const Unaligned*>(from); }
inline void store(float* to, Vector value) { *reinterpret_cast<Unaligned*>(to) = value; }
inline Vector broadcast(float value) { return value - Vector{}; }  // x - 0 is x for every x, so it costs nothing

inline Vector load(const float* from, int64_t lanes) {
  if (lanes >= LANES) return load(from);
  Vector value{};
  std::memcpy(&value, from, lanes * sizeof(float));
  return value;
}

inline void store(float* to, Vector value, int64_t lanes) {
  if (lanes >= LANES) return store(to, value);
  std::memcpy(to, &value, lanes * sizeof(float));
}

constexpr int64_t rounded_up(int64_t number, int64_t step) { return (number + step - 1) / step * step; }

template <class Task>
void in_parallel(int threads, int64_t tasks, const Task& task) {
  const int team = static_cast<int>(std::max<int64_t>(1, std::min<int64_t>(threads, tasks)));
  if (team == 1) {
    for (int64_t index = 0; index < tasks; index++) task(index, 0);
    return;
  }
  std::atomic<int64_t> next{0};
#pragma omp parallel num_threads(team)
  for (int64_t index; (index = next.fetch_add(1, std::memory_order_relaxed)) < tasks;) {
    task(index, omp_get_thread_num());
  }
}

// --- registers: tiles ----------------------------------------------------------------------------------------

// sums[target of pair] += gathered (ROWS pairs, 16 x chunks) x weights (16 x chunks, VECTORS x LANES).
// A chunk of channels of all pairs lies together, so every address below is one pointer and a constant.
template <int ROWS, int VECTORS>
__attribute__((noinline)) void multiply(const float* __restrict gathered, int64_t chunk_stride, int64_t chunks,
                                        const float* __restrict weights, float* sums, int64_t width,
                                        const int32_t* targets, int64_t first_row) {
  Vector total[ROWS][VECTORS] = {};
  for (int64_t chunk = 0; chunk < chunks; chunk++, gathered += chunk_stride) {
#pragma GCC unroll 4
    for (int channel = 0; channel < CHUNK; channel++, weights += VECTORS * LANES) {
      Vector weight[VECTORS];
      for (int v = 0; v < VECTORS; v++) weight[v] = load(weights + v * LANES);
#pragma GCC unroll 16
      for (int row = 0; row < ROWS; row++) {
        const Vector input = broadcast(gathered[row * CHUNK + channel]);
        for (int v = 0; v < VECTORS; v++) total[row][v] += input * weight[v];
      }
    }
  }
#pragma GCC unroll 16
  for (int row = 0; row < ROWS; row++) {
    float* place = sums + (targets[row] - first_row) * width;
    for (int v = 0; v < VECTORS; v++) store(place + v * LANES, load(place + v * LANES) + total[row][v]);
  }
}

template <int VECTORS, class ROWS>
struct Tiles;
template <int VECTORS, int... INDEX>
struct Tiles<VECTORS, std::integer_sequence<int, INDEX...>> {
  static constexpr decltype(&multiply<1, VECTORS>) of_rows[] = {nullptr, multiply<INDEX + 1, VECTORS>...};
};

// The same for any number of pairs, in even tiles: 13 rows as 5 + 4 + 4 are faster than as 6 + 6 + 1.
template <int VECTORS>
void multiply_pairs(const float* gathered, int64_t chunk_stride, int64_t chunks, const float* weights, float* sums,
                    int64_t width, const int32_t* targets, int64_t first_row, int64_t pairs) {
  using Table = Tiles<VECTORS, std::make_integer_sequence<int, TILE_ROWS>>;
  for (int64_t tiles = (pairs + TILE_ROWS - 1) / TILE_ROWS; tiles > 0; tiles--) {
    const int64_t rows = (pairs + tiles - 1) / tiles;
    Table::of_rows[rows](gathered, chunk_stride, chunks, weights, sums, width, targets, first_row);
    gathered += rows * CHUNK, targets += rows, pairs -= rows;
  }
}

// The same for up to THIN input channels: the rows are read where they are, the weights stay in registers.
template <int CHANNELS, int VECTORS>
void multiply_thin(const float* features, const float* weights, float* sums, int64_t width, const int32_t* sources,
                   const int32_t* targets, int64_t first_row, int64_t pairs) {
  Vector weight[CHANNELS][VECTORS];
  for (int c = 0; c < CHANNELS; c++)
    for (int v = 0; v < VECTORS; v++) weight[c][v] = load(weights + (c * VECTORS + v) * LANES);
  for (int64_t pair = 0; pair < pairs; pair++) {
    const float* row = features + int64_t{sources[pair]} * CHANNELS;
    float* place = sums + (targets[pair] - first_row) * width;
    for (int v = 0; v < VECTORS; v++) {
      Vector total = load(place + v * LANES);
      for (int c = 0; c < CHANNELS; c++) total += broadcast(row[c]) * weight[c][v];
      store(place + v * LANES, total);
    }
  }
}

// total (ROWS, columns) += inputs (pairs, ROWS) transposed x outputs (pairs, VECTORS x LANES), one place of the
// kernel's gradient; rows and columns beyond its edge are computed and not stored.
template <int ROWS, int VECTORS>
__attribute__((noinline)) void sum_products(const float* __restrict inputs, const float* __restrict outputs,
                                            int64_t pairs, float* total, int64_t stride, int64_t rows,
                                            int64_t columns) {
  Vector sum[ROWS][VECTORS] = {};
#pragma GCC unroll 4
  for (int64_t pair = 0; pair < pairs; pair++, inputs += CHUNK, outputs += VECTORS * LANES) {
    Vector output[VECTORS];
    for (int v = 0; v < VECTORS; v++) output[v] = load(outputs + v * LANES);
#pragma GCC unroll 16
    for (int row = 0; row < ROWS; row++) {
      const Vector input = broadcast(inputs[row]);
      for (int v = 0; v < VECTORS; v++) sum[row][v] += input * output[v];
    }
  }
#pragma GCC unroll 16
  for (int row = 0; row < ROWS; row++) {
    if (row >= rows) break;
    for (int v = 0; v < VECTORS; v++) {
      float* place = total + row * stride + v * LANES;
      const int64_t lanes = columns - v * LANES;
      store(place, load(place, lanes) + sum[row][v], lanes);
    }
  }
}

// The same for up to THIN input channels, from where the rows are.
template <int CHANNELS, int VECTORS>
void sum_products_thin(const float* features, const float* gradient, int64_t width, int64_t columns,
                       const int32_t* sources, const int32_t* targets, int64_t pairs, float* total) {
  Vector sum[CHANNELS][VECTORS] = {};
  for (int64_t pair = 0; pair < pairs; pair++) {
    const float* input = features + int64_t{sources[pair]} * CHANNELS;
    const float* output = gradient + int64_t{targets[pair]} * width;
    for (int v = 0; v < VECTORS; v++) {
      const Vector value = load(output + v * LANES, columns - v * LANES);
      for (int c = 0; c < CHANNELS; c++) sum[c][v] += broadcast(input[c]) * value;
    }
  }
  for (int c = 0; c < CHANNELS; c++) {
    for (int v = 0; v < VECTORS; v++) {
      float* place = total + c * width + v * LANES;
      const int64_t lanes = columns - v * LANES;
      store(place, load(place, lanes) + sum[c][v], lanes);
    }
  }
}

// Calls call(integral_constant) for the number of input channels of a thin layer.
template <class Call>
void for_channels(int64_t channels, const Call& call) {
  if (channels == 1) call(std::integral_constant<int, 1>());
  if (channels == 2) call(std::integral_constant<int, 2>());
  if (channels == 3) call(std::integral_constant<int, 3>());
  if (channels == 4) call(std::integral_constant<int, 4>());
}

// Calls call(vectors, first column) for the panels between two columns; only the last one of a layer may have one
// vector instead of two.
template <class Call>
void for_panels(int64_t first, int64_t last, const Call& call) {
  for (int64_t column = first; column < last; column += PANEL) {
    if (last - column > LANES) call(std::integral_constant<int, 2>(), column);
    else call(std::integral_constant<int, 1>(), column);
  }
}

// --- cache: what is gathered and packed ------------------------------------------------------------------------

inline void prefetch(const float* row, int64_t channels) {
  for (int64_t c = 0; c < channels; c += CHUNK) __builtin_prefetch(row + c);
}

// A row (channels,) in chunks: [chunk][pair][16], filled up with zeros.
inline void gather_input(const float* row, int64_t channels, float* place, int64_t chunk_stride) {
  for (; channels >= CHUNK; channels -= CHUNK, row += CHUNK, place += chunk_stride) {
    *reinterpret_cast<Line*>(place) = *reinterpret_cast<const Line*>(row);
  }
  if (channels > 0) {
    std::memset(place, 0, CHUNK * sizeof(float));
    std::memcpy(place, row, channels * sizeof(float));
  }
}

struct Layer {
  int64_t in, out;                     // channels of the operation at hand
  int64_t is_transposed, is_turned;    // kernel (offsets, out, in); offset k of the map is offsets - 1 - k of the kernel
  bool is_thin() const { return in <= THIN; }
  int64_t depth() const { return is_thin() ? in : rounded_up(in, CHUNK); }  // of the packed weights
  int64_t width() const { return rounded_up(out, LANES); }
};

// The weights of one offset as [panel][depth][columns of the panel], filled up with zeros.
void pack(const float* kernel, const Layer& layer, float* packed) {
  for_panels(0, layer.width(), [&](auto vectors, int64_t column) {
    constexpr int COLUMNS = decltype(vectors)::value * LANES;
    const int64_t columns = std::min<int64_t>(COLUMNS, layer.out - column);
    float* panel = packed + column * layer.depth();
    if (columns < COLUMNS || layer.in < layer.depth()) {
      std::memset(panel, 0, layer.depth() * COLUMNS * sizeof(float));
    }
    if (!layer.is_transposed) {
      for (int64_t c = 0; c < layer.in; c++) {
        std::memcpy(panel + c * COLUMNS, kernel + c * layer.out + column, columns * sizeof(float));
      }
      return;
    }
    for (int64_t chunk = 0; chunk < layer.in; chunk += CHUNK) {  // 16 rows of the panel stay in the first cache
      const int64_t channels = std::min<int64_t>(CHUNK, layer.in - chunk);
      for (int64_t j = 0; j < columns; j++) {
        const float* from = kernel + (column + j) * layer.in + chunk;
        for (int64_t c = 0; c < channels; c++) panel[(chunk + c) * COLUMNS + j] = from[c];
      }
    }
  });
}

// The pairs of a map by (offset, output row): those of offset k whose output rows are in block b are
// starts[k][b] to starts[k][b + 1].
struct Pairs {
  const int32_t *sources, *targets;
  const int64_t* starts;  // (offsets, blocks + 1)
  int64_t offsets, blocks, outputs;
  int64_t start(int64_t offset, int64_t block) const {
    return starts[offset * (blocks + 1) + std::min(block, blocks)];
  }
};

// Columns are shared out only where there are too few blocks to keep the threads busy: each group gathers anew.
int64_t column_groups(const Layer& layer, int64_t tasks, int threads) {
  const int64_t panels = rounded_up(layer.width(), PANEL) / PANEL;
  return threads == 1 || tasks >= 8 * int64_t{threads} ? 1 : std::min<int64_t>(panels, threads);
}

struct Columns {
  int64_t first, last;
  Columns(const Layer& layer, int64_t group, int64_t groups) {
    const int64_t panels = rounded_up(layer.width(), PANEL) / PANEL;
    first = panels * group / groups * PANEL;
    last = std::min(panels * (group + 1) / groups * PANEL, layer.width());
  }
  int64_t count() const { return last - first; }
};

// An odd number of cache lines between the chunks of a gathered row: else they would share one set of the cache.
constexpr int64_t CHUNK_STRIDE = (BLOCK_ROWS + 1) * CHUNK;

int64_t convolve_scratch(const Layer& layer) {  // of one thread, in numbers
  return BLOCK_ROWS * layer.width() + CHUNK_STRIDE * rounded_up(layer.in, CHUNK) / CHUNK;
}

int64_t gradient_scratch(const Layer& layer) {
  return SUMMED_PAIRS * (rounded_up(layer.in, CHUNK) + layer.width());
}

// The sums (rows, columns) of one block of output rows.
void sum_block(const float* features, const float* packed, const Pairs& pairs, const Layer& layer, int64_t block,
               const Columns& columns, float* sums, float* gathered) {
  const int64_t first_row = block * BLOCK_ROWS;
  std::memset(sums, 0, std::min(BLOCK_ROWS, pairs.outputs - first_row) * columns.count() * sizeof(float));
  for (int64_t offset = 0; offset < pairs.offsets; offset++) {
    const int64_t start = pairs.start(offset, block), count = pairs.start(offset, block + 1) - start;
    const int32_t *sources = pairs.sources + start, *targets = pairs.targets + start;
    if (count == 0) continue;
    const float* weights = packed + offset * layer.depth() * layer.width();
    for (int64_t pair = 0; pair < count && !layer.is_thin(); pair++) {
      if (pair + AHEAD < count) prefetch(features + sources[pair + AHEAD] * layer.in, layer.in);
      gather_input(features + sources[pair] * layer.in, layer.in, gathered + pair * CHUNK, CHUNK_STRIDE);
    }
    for_panels(columns.first, columns.last, [&](auto vectors, int64_t column) {
      constexpr int VECTORS = decltype(vectors)::value;
      const float* panel = weights + column * layer.depth();
      float* place = sums + column - columns.first;
      const int64_t width = columns.count();
      if (layer.is_thin()) {
        for_channels(layer.in, [&](auto channels) {
          constexpr int CHANNELS = decltype(channels)::value;
          multiply_thin<CHANNELS, VECTORS>(features, panel, place, width, sources, targets, first_row, count);
        });
      } else {
        const int64_t chunks = layer.depth() / CHUNK;
        multiply_pairs<VECTORS>(gathered, CHUNK_STRIDE, chunks, panel, place, width, targets, first_row, count);
      }
    });
  }
}

struct Tail {  // what follows the sum at inference: bias (out,), residual (outputs, out), ReLU; null where absent
  const float *bias, *residual;
  int64_t relu;
};

void finish_block(const float* sums, const Pairs& pairs, const Layer& layer, int64_t block, const Columns& columns,
                  const Tail& tail, float* out) {
  const int64_t first_row = block * BLOCK_ROWS;
  for (int64_t row = first_row; row < std::min(first_row + BLOCK_ROWS, pairs.outputs); row++) {
    for (int64_t column = columns.first; column < columns.last; column += LANES, sums += LANES) {
      const int64_t lanes = layer.out - column, place = row * layer.out + column;
      Vector value = load(sums);
      if (tail.bias) value += load(tail.bias + column, lanes);
      if (tail.residual) value += load(tail.residual + place, lanes);
      if (tail.relu) value = value < 0 ? Vector{} : value;  // NaN stays
      store(out + place, value, lanes);
    }
  }
}

// --- the kernel's gradient ---------------------------------------------------------------------------------------

struct Unit {  // a part of the kernel's gradient that one thread makes
  int64_t work;
  int32_t offset, group, thread;
};

// Deals the units to threads, the largest first, each to the thread with the least work.
void deal(Unit* units, int64_t count, int threads, int64_t* loads) {
  std::sort(units, units + count, [](const Unit& one, const Unit& other) {
    const int64_t mine = int64_t{one.offset} << 32 | one.group, its = int64_t{other.offset} << 32 | other.group;
    return one.work != other.work ? one.work > other.work : mine < its;
  });
  std::fill(loads, loads + threads, 0);
  for (int64_t index = 0; index < count; index++) {
    const auto thread = std::min_element(loads, loads + threads) - loads;
    units[index].thread = static_cast<int32_t>(thread);
    loads[thread] += units[index].work;
  }
}

// total (in, out) += the products of up to SUMMED_PAIRS pairs, within the columns.
void sum_run(const float* features, const float* gradient, const int32_t* sources, const int32_t* targets,
             int64_t count, const Layer& layer, const Columns& columns, float* total, float* scratch) {
  const int64_t chunk_stride = SUMMED_PAIRS * CHUNK;
  float *inputs = scratch, *outputs = scratch + SUMMED_PAIRS * rounded_up(layer.in, CHUNK);
  for (int64_t pair = 0; pair < count; pair++) {
    if (pair + AHEAD < count) {
      prefetch(features + sources[pair + AHEAD] * layer.in, layer.in);
      prefetch(gradient + targets[pair + AHEAD] * layer.out + columns.first, columns.count());
    }
    gather_input(features + sources[pair] * layer.in, layer.in, inputs + pair * CHUNK, chunk_stride);
    const float* row = gradient + targets[pair] * layer.out;
    for_panels(columns.first, columns.last, [&](auto vectors, int64_t column) {
      constexpr int VECTORS = decltype(vectors)::value;
      float* place = outputs + (column - columns.first) * SUMMED_PAIRS + pair * VECTORS * LANES;
      for (int v = 0; v < VECTORS; v++) {
        store(place + v * LANES, load(row + column + v * LANES, layer.out - column - v * LANES));
      }
    });
  }
  for_panels(columns.first, columns.last, [&](auto vectors, int64_t column) {
    constexpr int VECTORS = decltype(vectors)::value;
    const float* panel = outputs + (column - columns.first) * SUMMED_PAIRS;
    for (int64_t c = 0; c < layer.in; c += SUM_CHANNELS) {
      const float* chunk = inputs + c / CHUNK * chunk_stride + c % CHUNK;
      float* place = total + c * layer.out + column;
      sum_products<SUM_CHANNELS, VECTORS>(chunk, panel, count, place, layer.out, layer.in - c, layer.out - column);
    }
  });
}

void sum_run_thin(const float* features, const float* gradient, const int32_t* sources, const int32_t* targets,
                  int64_t count, const Layer& layer, const Columns& columns, float* total) {
  for_panels(columns.first, columns.last, [&](auto vectors, int64_t column) {
    constexpr int VECTORS = decltype(vectors)::value;
    for_channels(layer.in, [&](auto channels) {
      sum_products_thin<decltype(channels)::value, VECTORS>(features, gradient + column, layer.out,
                                                            layer.out - column, sources, targets, count,
                                                            total + column);
    });
  });
}

// --- batch normalisation -------------------------------------------------------------------------------------------

// sums[column] = sum of value(place, column, lanes) over the rows of a block: in float32 for a run, then in float64.
template <class Value>
void sum_rows(int64_t block, int64_t rows, int64_t channels, double* sums, const Value& value) {
  const int64_t first = block * NORM_ROWS, last = std::min(first + NORM_ROWS, rows);
  for_panels(0, rounded_up(channels, LANES), [&](auto vectors, int64_t column) {
    constexpr int VECTORS = decltype(vectors)::value;
    Doubles total[VECTORS] = {};
    for (int64_t run = first; run < last; run += RUN) {
      Vector sum[VECTORS] = {};
      for (int64_t row = run; row < std::min(run + RUN, last); row++) {
        for (int v = 0; v < VECTORS; v++) {
          const int64_t c = column + v * LANES;
          sum[v] += value(row * channels + c, c, channels - c);
        }
      }
      for (int v = 0; v < VECTORS; v++) total[v] += __builtin_convertvector(sum[v], Doubles);
    }
    std::memcpy(sums + column, total, std::min<int64_t>(VECTORS * LANES, channels - column) * sizeof(double));
  });
}

// The same over all rows: partial sums of blocks, made by any thread, are added in the order of the blocks.
template <class Value>
void sum_all_rows(int64_t rows, int64_t channels, double* sums, double* partial, int threads, const Value& value) {
  const int64_t blocks = rounded_up(rows, NORM_ROWS) / NORM_ROWS;
  in_parallel(threads, blocks, [&](int64_t block, int) {
    sum_rows(block, rows, channels, partial + block * channels, value);
  });
  std::fill(sums, sums + channels, 0.0);
  for (int64_t block = 0; block < blocks; block++) {
    for (int64_t c = 0; c < channels; c++) sums[c] += partial[block * channels + c];
  }
}

// Calls call(place, column, lanes) for every vector of a matrix (rows, channels).
template <class Call>
void for_vectors(int64_t rows, int64_t channels, int threads, const Call& call) {
  in_parallel(threads, rounded_up(rows, NORM_ROWS) / NORM_ROWS, [&](int64_t block, int) {
    for (int64_t row = block * NORM_ROWS; row < std::min((block + 1) * NORM_ROWS, rows); row++) {
      for (int64_t c = 0; c < channels; c += LANES) call(row * channels + c, c, channels - c);
    }
  });
}

}  // namespace

extern "C" {

int64_t norm_scratch(int64_t rows, int64_t channels) {  // numbers of float64
  return (rounded_up(rows, NORM_ROWS) / NORM_ROWS + 4) * channels;
}

const char* variant() { return VARIANT; }

const char* source() { return SOURCE; }  // the hash of this file, by which the Python beside it knows it

// Counts the pairs of table (offsets, outputs) of input rows, -1 for none, into starts (offsets, blocks + 1).
// -1 if an entry is no input row, else how many pairs there are.
int64_t count_pairs(const int32_t* table, int64_t inputs, Pairs* pairs, int64_t* starts) {
  int64_t total = 0;
  bool fits = true;
  for (int64_t offset = 0; offset < pairs->offsets; offset++, table += pairs->outputs) {
    *starts++ = total;
    for (int64_t block = 0; block < pairs->blocks; block++) {
      const int64_t first = block * BLOCK_ROWS, last = std::min(first + BLOCK_ROWS, pairs->outputs);
      int32_t count = 0, wrong = 0;
      for (int64_t row = first; row < last; row++) {
        count += table[row] >= 0;
        wrong += table[row] < -1 || table[row] >= inputs;
      }
      fits &= wrong == 0;
      *starts++ = total += count;
    }
  }
  return fits ? total : -1;
}

// Writes sources and targets, each with one place more than there are pairs: every entry is written, and only
// those that exist move on, so nothing has to be predicted.
void fill_pairs(const int32_t* table, const Pairs* pairs, int32_t* sources, int32_t* targets) {
  int64_t place = 0;
  for (int64_t offset = 0; offset < pairs->offsets; offset++, table += pairs->outputs) {
    for (int64_t row = 0; row < pairs->outputs; row++) {
      sources[place] = table[row];
      targets[place] = static_cast<int32_t>(row);
      place += table[row] >= 0;
    }
  }
}

// How many numbers of memory `convolve` and `kernel_gradient` need.
int64_t scratch_numbers(const Pairs* pairs, const Layer* layer, int threads) {
  const int64_t packed = pairs->offsets * layer->depth() * layer->width();
  const int64_t units = (pairs->offsets * threads * sizeof(Unit) + threads * sizeof(int64_t)) / sizeof(float) + CHUNK;
  return std::max(packed + threads * rounded_up(convolve_scratch(*layer), CHUNK),
                  units + threads * rounded_up(gradient_scratch(*layer), CHUNK));
}

// out (outputs, layer.out) = relu(sum over pairs of features (inputs, layer.in) x kernel + bias + residual).
void convolve(const float* features, const float* kernel, const Pairs* pairs, const Layer* layer, const Tail* tail,
              float* out, float* scratch, int threads) {
  const int64_t size = layer->depth() * layer->width();
  float* packed = scratch;
  in_parallel(threads, pairs->offsets, [&](int64_t offset, int) {
    const int64_t of_kernel = layer->is_turned ? pairs->offsets - 1 - offset : offset;
    pack(kernel + of_kernel * layer->in * layer->out, *layer, packed + offset * size);
  });
  const int64_t groups = column_groups(*layer, pairs->blocks, threads);
  const int64_t own = rounded_up(convolve_scratch(*layer), CHUNK);
  in_parallel(threads, pairs->blocks * groups, [&](int64_t task, int thread) {
    const Columns columns(*layer, task % groups, groups);
    float* sums = packed + pairs->offsets * size + thread * own;
    float* gathered = sums + BLOCK_ROWS * layer->width();
    sum_block(features, packed, *pairs, *layer, task / groups, columns, sums, gathered);
    finish_block(sums, *pairs, *layer, task / groups, columns, *tail, out);
  });
}

// total (offsets, in, out) = sum over each offset's pairs of features (inputs, in) transposed x gradient (outputs, out).
void kernel_gradient(const float* features, const float* gradient, const Pairs* pairs, const Layer* layer,
                     float* total, float* scratch, int threads) {
  const int64_t groups = column_groups(*layer, pairs->offsets, threads), units = pairs->offsets * groups;
  auto* unit = reinterpret_cast<Unit*>(scratch);
  for (int64_t index = 0; index < units; index++) {
    const auto offset = static_cast<int32_t>(index / groups), group = static_cast<int32_t>(index % groups);
    const int64_t count = pairs->start(offset, pairs->blocks) - pairs->start(offset, 0);
    unit[index] = {(count + 64) * Columns(*layer, group, groups).count(), offset, group, 0};
  }
  deal(unit, units, threads, reinterpret_cast<int64_t*>(unit + units));
  float* rest = scratch + rounded_up((units * sizeof(Unit) + threads * sizeof(int64_t)) / sizeof(float), CHUNK);
  const int64_t blocks = SUMMED_ROWS / BLOCK_ROWS, own = rounded_up(gradient_scratch(*layer), CHUNK);
  std::memset(total, 0, pairs->offsets * layer->in * layer->out * sizeof(float));
  in_parallel(threads, threads, [&](int64_t share, int) {
    for (int64_t block = 0; block < pairs->blocks; block += blocks) {
      for (int64_t index = 0; index < units; index++) {
        if (unit[index].thread != share) continue;
        const Columns columns(*layer, unit[index].group, groups);
        float* place = total + unit[index].offset * layer->in * layer->out;
        int64_t start = pairs->start(unit[index].offset, block);
        const int64_t end = pairs->start(unit[index].offset, block + blocks);
        while (start < end) {  // the last two runs are even: a short one is slow
          const int64_t left = end - start;
          const int64_t count = left >= 2 * SUMMED_PAIRS || left <= SUMMED_PAIRS
                                    ? std::min<int64_t>(left, SUMMED_PAIRS) : (left + 1) / 2;
          const int32_t *sources = pairs->sources + start, *targets = pairs->targets + start;
          if (layer->is_thin()) sum_run_thin(features, gradient, sources, targets, count, *layer, columns, place);
          else sum_run(features, gradient, sources, targets, count, *layer, columns, place, rest + share * own);
          start += count;
        }
      }
    }
  });
}

// relu((x - mean) / sqrt(variance + eps) * weight + bias + residual) over the rows of x (rows, channels), and its
// statistics; inverse (channels,) is 1 / sqrt(variance + eps). scratch: norm_scratch(rows, channels) numbers.
void normalise(const float* x, int64_t rows, int64_t channels, const float* weight, const Tail* tail, double eps,
               float* out, float* mean, float* variance, float* inverse, double* scratch, int threads) {
  double *sums = scratch, *partial = scratch + channels;
  sum_all_rows(rows, channels, sums, partial, threads,
               [&](int64_t place, int64_t, int64_t lanes) { return load(x + place, lanes); });
  for (int64_t c = 0; c < channels; c++) mean[c] = static_cast<float>(sums[c] / rows);
  sum_all_rows(rows, channels, sums, partial, threads, [&](int64_t place, int64_t c, int64_t lanes) {
    const Vector centred = load(x + place, lanes) - load(mean + c, lanes);
    return centred * centred;
  });
  auto* scale = reinterpret_cast<float*>(partial);
  for (int64_t c = 0; c < channels; c++) {
    variance[c] = static_cast<float>(sums[c] / rows);
    inverse[c] = static_cast<float>(1 / __builtin_sqrt(sums[c] / rows + eps));
    scale[c] = weight[c] * inverse[c];
  }
  for_vectors(rows, channels, threads, [&](int64_t place, int64_t c, int64_t lanes) {
    Vector value = load(x + place, lanes) - load(mean + c, lanes);
    value = value * load(scale + c, lanes) + load(tail->bias + c, lanes);
    if (tail->residual) value += load(tail->residual + place, lanes);
    if (tail->relu) value = value < 0 ? Vector{} : value;
    store(out + place, value, lanes);
  });
}

// The gradients of the same from that of the output; `out` only where a ReLU followed, `grad_residual` only where a
// residual was added before it (without a ReLU, it is the gradient itself).
void normalise_backward(const float* gradient, const float* x, int64_t rows, int64_t channels, const float* weight,
                        const float* mean, const float* inverse, const float* out, float* grad_x,
                        float* grad_residual, float* grad_weight, float* grad_bias, double* scratch, int threads) {
  double *sums = scratch, *products = scratch + channels, *partial = scratch + 2 * channels;
  const auto arriving = [&](int64_t place, int64_t lanes) {
    const Vector value = load(gradient + place, lanes);
    return out ? (load(out + place, lanes) <= 0 ? Vector{} : value) : value;
  };
  sum_all_rows(rows, channels, sums, partial, threads,
               [&](int64_t place, int64_t, int64_t lanes) { return arriving(place, lanes); });
  sum_all_rows(rows, channels, products, partial, threads, [&](int64_t place, int64_t c, int64_t lanes) {
    return arriving(place, lanes) * (load(x + place, lanes) - load(mean + c, lanes));
  });
  auto *scale = reinterpret_cast<float*>(partial), *slope = scale + channels, *shift = slope + channels;
  for (int64_t c = 0; c < channels; c++) {
    const double factor = double{inverse[c]} * weight[c];
    grad_bias[c] = static_cast<float>(sums[c]);
    grad_weight[c] = static_cast<float>(products[c] * inverse[c]);
    scale[c] = static_cast<float>(factor);
    slope[c] = static_cast<float>(-factor * inverse[c] * inverse[c] * products[c] / rows);
    shift[c] = static_cast<float>(-factor * sums[c] / rows);
  }
  for_vectors(rows, channels, threads, [&](int64_t place, int64_t c, int64_t lanes) {
    const Vector value = arriving(place, lanes), centred = load(x + place, lanes) - load(mean + c, lanes);
    if (grad_residual) store(grad_residual + place, value, lanes);
    store(grad_x + place, load(scale + c, lanes) * value + load(slope + c, lanes) * centred + load(shift + c, lanes),
          lanes);
  });
}

// The processor's rate: multiplies and adds in registers alone; how many operations that was.
int64_t multiply_add(int64_t rounds, float* sink, int threads) {
  constexpr int SUMS = REGISTERS - 4;
  in_parallel(threads, threads, [&](int64_t share, int) {
    Vector sum[SUMS] = {};
    Vector factor = broadcast(sink[share]), step = broadcast(0.5f);
    for (int64_t round = 0; round < rounds; round++) {
#pragma GCC unroll 32
      for (int index = 0; index < SUMS; index++) sum[index] = sum[index] * factor + step;
    }
    for (int index = 1; index < SUMS; index++) sum[0] += sum[index];
    sink[share] = sum[0][0];
  });
  return rounds * threads * SUMS * LANES * 2;
}
}
