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
import java.util.HashSet;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Brings the tensors of a checkpoint to a device. BF16 and F32 weights are mapped from their file as they are; F16 and
 * FP8 ones are converted once.
 */
final class WeightLoader implements Weights.Source {
    private static final Logger log = LoggerFactory.getLogger(WeightLoader.class);

    private final Checkpoint checkpoint;
    private final Arena arena;
    private final Set<String> used = new HashSet<>();

    private WeightLoader(Checkpoint checkpoint, Arena arena) {
        this.checkpoint = checkpoint;
        this.arena = arena;
    }

    static WeightLoader loading(Checkpoint checkpoint, Arena arena) {
        return new WeightLoader(checkpoint, arena);
    }

    /** A source that finds every tensor and reads none; the weights that it gives hold nulls. */
    static WeightLoader checking(Checkpoint checkpoint) {
        return new WeightLoader(checkpoint, null);
    }

    /** The model's weights. Tensors of the checkpoint that nothing uses are named in one warning. */
    Weights weights() {
        Weights weights = Weights.of(checkpoint.config(), this);
        if (arena != null) {
            Map<String, Integer> unused = unused();
            if (!unused.isEmpty()) {
                log.warn("{}: tensors that the model does not use, by number: {}", checkpoint.folder(), unused);
            }
        }
        return weights;
    }

    @Override
    public Tensor matrix(String name, long out, long in) {
        TensorInfo info = require(name, out, in);
        TensorInfo scale = info.dtype() == io.github.sparkmla.checkpoint.DType.F8_E4M3 ? scaleOf(name, out, in) : null;
        if (arena == null) {
            return null;
        }
        return switch (info.dtype()) {
            case BF16 -> map(info, DType.BF16, out, in);
            case F32 -> map(info, DType.F32, out, in);
            default -> convert(info, scale, widened(), out, in);
        };
    }

    @Override
    public Tensor vector(String name, long size, boolean exact) {
        TensorInfo info = require(name, size);
        if (arena == null) {
            return null;
        }
        boolean asIs = info.dtype() == io.github.sparkmla.checkpoint.DType.F32
                || (info.dtype() == io.github.sparkmla.checkpoint.DType.BF16 && !exact);
        if (asIs) {
            return map(info, DType.valueOf(info.dtype().name()), size);
        }
        return convert(info, null, exact ? DType.F32 : widened(), 1, size).view(0, new long[] {size}, new long[] {1});
    }

    private TensorInfo require(String name, long... shape) {
        used.add(name);
        return checkpoint.tensors().require(name, shape);
    }

    /** What weights that the kernels do not read as they are become: exact on the CPU, BF16 on a GPU. */
    private DType widened() {
        return arena.device().isCuda() ? DType.BF16 : DType.F32;
    }

    private TensorInfo scaleOf(String name, long out, long in) {
        ModelConfig.Fp8 fp8 = checkpoint.config().fp8();
        if (fp8 == null) {
            throw new CheckpointException(
                    "tensor " + name + " is FP8 but config.json has no quantization_config that says how it is scaled");
        }
        long rows = fp8.blockRows();
        long columns = fp8.blockColumns();
        return require(name + "_scale_inv", (out + rows - 1) / rows, (in + columns - 1) / columns);
    }

    private Tensor map(TensorInfo info, DType dtype, long... shape) {
        return arena.map(info.file(), info.offset(), dtype, shape);
    }

    private Tensor convert(TensorInfo info, TensorInfo scale, DType to, long rows, long columns) {
        Device device = arena.device();
        Tensor out = arena.allocate(to, rows, columns);
        try (Tensor source = device.map(
                info.file(), info.offset(), DType.valueOf(info.dtype().name()), rows, columns)) {
            if (scale == null) {
                new Ops(device).convert(source, null, 1, out);
            } else {
                try (Tensor scales =
                        device.map(scale.file(), scale.offset(), DType.F32, scale.shape()[0], scale.shape()[1])) {
                    new Ops(device)
                            .convert(source, scales, checkpoint.config().fp8().blockRows(), out);
                }
            }
            device.synchronize();
        }
        return out;
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
}
