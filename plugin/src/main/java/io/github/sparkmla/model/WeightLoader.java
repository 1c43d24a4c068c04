package io.github.sparkmla.model;

import io.github.sparkmla.checkpoint.Checkpoint;
import io.github.sparkmla.checkpoint.CheckpointException;
import io.github.sparkmla.checkpoint.ModelConfig;
import io.github.sparkmla.checkpoint.TensorInfo;
import io.github.sparkmla.tensor.Arena;
import io.github.sparkmla.tensor.DType;
import io.github.sparkmla.tensor.Device;
import io.github.sparkmla.tensor.Ops;
import io.github.sparkmla.tensor.Tensor;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.function.IntFunction;

/**
 * Brings the tensors of a checkpoint to a device. On the CPU what the operations read as it is (BF16, F32) is mapped from
 * its file, and only the weights of products are copied, once, into the layout that they are read in; a GPU gets BF16.
 * Everything else is converted once, on the device. Files are mapped and copied from there: no weight passes through the
 * Java heap.
 */
final class WeightLoader implements Weights.Source, AutoCloseable {
    private final Checkpoint checkpoint;
    private final Arena arena;
    private final Device host; // where files are mapped to be copied
    private final Set<String> used = new HashSet<>();

    /** A tensor of the checkpoint; {@code scale} is null unless it is FP8. */
    private record Stored(TensorInfo info, TensorInfo scale) {
        DType dtype() {
            return DType.valueOf(info.dtype().name());
        }

        boolean endsWhere(Stored next) {
            return info.file().equals(next.info.file()) && info.offset() + info.bytes() == next.info.offset();
        }
    }

    private WeightLoader(Checkpoint checkpoint, Arena arena) {
        this.checkpoint = checkpoint;
        this.arena = arena;
        this.host = arena == null ? null : arena.device().isCuda() ? Device.open("cpu", 0, 1) : arena.device();
    }

    static WeightLoader loading(Checkpoint checkpoint, Arena arena) {
        return new WeightLoader(checkpoint, arena);
    }

    /** A source that finds every tensor and reads none; the weights that it gives hold nulls. */
    static WeightLoader checking(Checkpoint checkpoint) {
        return new WeightLoader(checkpoint, null);
    }

    @Override
    public String eitherOf(String name, String substitute) {
        return checkpoint.tensors().contains(name) ? name : substitute;
    }

    @Override
    public Tensor matrix(long out, long in, String... names) {
        List<Stored> parts = find(out, in, names);
        if (arena == null) {
            return null;
        }
        DType dtype = loadedAs(parts);
        if (isOnePiece(parts, dtype)) {
            return map(parts.get(0), dtype, names.length * out, in);
        }
        Tensor matrix = arena.allocate(dtype, names.length * out, in);
        fill(matrix, parts);
        return matrix;
    }

    @Override
    public Tensor weight(long out, long in, String... names) {
        Tensor matrix = matrix(out, in, names);
        return matrix == null ? null : arena.pack(matrix);
    }

    @Override
    public Tensor[] experts(int count, long out, long in, IntFunction<String[]> names) {
        Tensor[] experts = new Tensor[count];
        if (arena == null || !arena.device().isCuda()) {
            Arrays.setAll(experts, e -> weight(out, in, names.apply(e)));
            return experts;
        }
        Tensor all = arena.allocate(DType.BF16, count, names.apply(0).length * out, in);
        experts = all.split();
        for (int e = 0; e < count; e++) {
            fill(experts[e], find(out, in, names.apply(e)));
        }
        return experts;
    }

    @Override
    public Tensor vector(String name, long size, boolean exact) {
        Stored stored = new Stored(require(name, size), null);
        if (arena == null) {
            return null;
        }
        DType dtype = exact ? DType.F32 : loadedAs(List.of(stored));
        if (isOnePiece(List.of(stored), dtype)) {
            return map(stored, dtype, size);
        }
        Tensor vector = arena.allocate(dtype, size);
        fill(vector.reshape(1, size), List.of(stored));
        return vector;
    }

    private List<Stored> find(long out, long in, String... names) {
        return Arrays.stream(names)
                .map(name -> {
                    TensorInfo info = require(name, out, in);
                    boolean fp8 = info.dtype() == io.github.sparkmla.checkpoint.DType.F8_E4M3;
                    return new Stored(info, fp8 ? scaleOf(name, out, in) : null);
                })
                .toList();
    }

    private TensorInfo require(String name, long... shape) {
        used.add(name);
        return checkpoint.tensors().require(name, shape);
    }

    private TensorInfo scaleOf(String name, long out, long in) {
        ModelConfig.Fp8 fp8 = checkpoint.config().fp8();
        if (fp8 == null) {
            throw new CheckpointException(
                    "tensor " + name + " is FP8 but config.json has no quantization_config that says how it is scaled");
        }
        long block = fp8.block();
        return require(name + "_scale_inv", (out + block - 1) / block, (in + block - 1) / block);
    }

    /** BF16 on a GPU; on the CPU nothing is rounded. */
    private DType loadedAs(List<Stored> parts) {
        boolean bf16 = parts.stream().allMatch(part -> part.dtype() == DType.BF16);
        return arena.device().isCuda() || bf16 ? DType.BF16 : DType.F32;
    }

    /** Whether the parts lie one behind the other in a file, as they are wanted, where the device can read them. */
    private boolean isOnePiece(List<Stored> parts, DType dtype) {
        boolean onePiece = !arena.device().isCuda() && parts.get(0).dtype() == dtype;
        for (int i = 1; i < parts.size(); i++) {
            onePiece &= parts.get(i).dtype() == dtype && parts.get(i - 1).endsWhere(parts.get(i));
        }
        return onePiece;
    }

    private Tensor map(Stored first, DType dtype, long... shape) {
        return arena.map(first.info.file(), first.info.offset(), dtype, shape);
    }

    /** Fills a matrix with its parts, one below the other. */
    private void fill(Tensor matrix, List<Stored> parts) {
        long rows = matrix.size(0) / parts.size();
        for (int i = 0; i < parts.size(); i++) {
            fill(matrix.rows(i * rows, rows), parts.get(i));
        }
    }

    private void fill(Tensor to, Stored part) {
        Device device = arena.device();
        if (part.dtype() == to.dtype()) {
            try (Tensor source = open(host, part.info, to.size(0), to.size(1))) {
                device.copy(source, to);
            }
            return;
        }
        try (Tensor source = open(device, part.info, to.size(0), to.size(1))) {
            if (part.scale == null) {
                new Ops(device).convert(source, null, 1, to);
            } else {
                long[] blocks = part.scale.shape();
                try (Tensor scale = open(device, part.scale, blocks[0], blocks[1])) {
                    new Ops(device)
                            .convert(source, scale, checkpoint.config().fp8().block(), to);
                }
            }
            device.synchronize();
        }
    }

    private static Tensor open(Device device, TensorInfo info, long... shape) {
        return device.map(info.file(), info.offset(), DType.valueOf(info.dtype().name()), shape);
    }

    /** Layers past num_hidden_layers (multi-token prediction) and the like, by module, with how many tensors each has. */
    Map<String, Integer> unused() {
        Map<String, Integer> unused = new TreeMap<>();
        for (String name : checkpoint.tensors().tensors().keySet()) {
            if (!used.contains(name)) {
                String[] parts = name.split("\\.", -1);
                boolean inLayer = parts.length > 2 && parts[1].equals("layers");
                unused.merge(inLayer ? parts[0] + ".layers." + parts[2] + ".*" : name, 1, Integer::sum);
            }
        }
        return unused;
    }

    @Override
    public void close() {
        if (host != null && host != arena.device()) {
            host.close();
        }
    }
}
