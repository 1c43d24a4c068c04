package io.github.sparkmla.examples;

import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import org.apache.spark.launcher.JavaModuleOptions;

/**
 * A master and some workers in processes of their own, each worker at a loopback address of its own: Spark takes them for
 * hosts. On local-cluster all are one host, and Spark starts no speculative copy on the host of the first attempt. Needs
 * SPARK_HOME and SPARK_SCALA_VERSION, as any standalone cluster does.
 */
final class StandaloneCluster {
    private static final int START_SECONDS = 30;

    private final Path logs;
    private final int port;
    private final List<Process> processes = new ArrayList<>();

    /**
     * @param logs folder of the daemons' logs; the executors' lie in its folder work, by application
     * @param workers how many
     * @param cores of a worker
     * @param memory of a worker, such as 2g
     * @param workerSettings Spark settings of the workers, their resources for one
     */
    StandaloneCluster(Path logs, int workers, int cores, String memory, Map<String, String> workerSettings)
            throws IOException, InterruptedException {
        this.logs = Files.createDirectories(logs);
        this.port = freePort();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> processes.forEach(Process::destroy)));
        start("master", Map.of(), "master.Master", "--host", "127.0.0.1", "--port", "" + port, "--webui-port", "0");
        awaitMaster();
        for (int i = 1; i <= workers; i++) {
            start(
                    "worker-" + i,
                    workerSettings,
                    "worker.Worker",
                    master(),
                    "--host",
                    "127.0.0." + i,
                    "--webui-port",
                    "0",
                    "--cores",
                    "" + cores,
                    "--memory",
                    memory,
                    "--work-dir",
                    logs.resolve("work").toString());
        }
    }

    /** What a session names as its master. */
    String master() {
        return "spark://127.0.0.1:" + port;
    }

    /** The executors' JVMs. */
    List<ProcessHandle> executors() {
        return processes.stream()
                .flatMap(process -> process.toHandle().descendants())
                .filter(process -> process.info().commandLine().orElse("").contains("CoarseGrainedExecutorBackend"))
                .toList();
    }

    private static int freePort() throws IOException {
        try (ServerSocket socket = new ServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
            return socket.getLocalPort();
        }
    }

    private void start(String name, Map<String, String> settings, String daemon, String... args) throws IOException {
        List<String> command = new ArrayList<>();
        command.add(Path.of(System.getProperty("java.home"), "bin", "java").toString());
        command.addAll(Arrays.asList(JavaModuleOptions.defaultModuleOptionArray()));
        settings.forEach((key, value) -> command.add("-D" + key + "=" + value));
        command.addAll(List.of("-cp", System.getenv("SPARK_HOME") + "/jars/*", "org.apache.spark.deploy." + daemon));
        command.addAll(Arrays.asList(args));
        processes.add(new ProcessBuilder(command)
                .redirectErrorStream(true)
                .redirectOutput(logs.resolve(name + ".log").toFile())
                .start());
    }

    /** A worker that finds no master waits for many seconds before it looks again. */
    private void awaitMaster() throws InterruptedException {
        long end = System.nanoTime() + START_SECONDS * 1_000_000_000L;
        while (true) {
            try (Socket socket = new Socket()) {
                socket.connect(new InetSocketAddress(InetAddress.getLoopbackAddress(), port), 1000);
                return;
            } catch (IOException e) {
                if (System.nanoTime() > end || !processes.get(0).isAlive()) {
                    stop();
                    throw new IllegalStateException("no Spark master: see " + logs.resolve("master.log"), e);
                }
                Thread.sleep(100);
            }
        }
    }

    /** Ends the workers, which end their executors, and the master. */
    void stop() throws InterruptedException {
        for (int i = processes.size() - 1; i >= 0; i--) {
            processes.get(i).destroy();
            processes.get(i).waitFor();
        }
    }
}
