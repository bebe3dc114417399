import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.security.GeneralSecurityException;
import java.security.KeyStore;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import javax.inject.Inject;
import javax.inject.Named;
import javax.inject.Singleton;
import org.apache.maven.AbstractMavenLifecycleParticipant;
import org.apache.maven.execution.MavenSession;
import org.apache.maven.model.Dependency;
import org.apache.maven.model.Extension;
import org.apache.maven.model.Model;
import org.apache.maven.model.Plugin;
import org.apache.maven.model.PluginExecution;
import org.apache.maven.model.building.ModelBuildingRequest;
import org.apache.maven.model.building.ModelProblemCollector;
import org.apache.maven.model.management.DefaultPluginManagementInjector;
import org.apache.maven.model.management.PluginManagementInjector;
import org.apache.maven.plugin.internal.PluginDependenciesResolver;
import org.apache.maven.plugin.prefix.DefaultPluginPrefixRequest;
import org.apache.maven.plugin.prefix.PluginPrefixResolver;
import org.apache.maven.plugin.prefix.PluginPrefixResult;
import org.apache.maven.plugin.version.DefaultPluginVersionRequest;
import org.apache.maven.plugin.version.PluginVersionResolver;
import org.apache.maven.project.DefaultDependencyResolutionRequest;
import org.apache.maven.project.DependencyResolutionException;
import org.apache.maven.project.MavenProject;
import org.apache.maven.project.ProjectDependenciesResolver;
import org.codehaus.plexus.util.xml.Xpp3Dom;
import org.eclipse.aether.DefaultRepositorySystemSession;
import org.eclipse.aether.RepositorySystem;
import org.eclipse.aether.RepositorySystemSession;
import org.eclipse.aether.artifact.Artifact;
import org.eclipse.aether.artifact.DefaultArtifact;
import org.eclipse.aether.collection.CollectRequest;
import org.eclipse.aether.graph.DependencyFilter;
import org.eclipse.aether.repository.AuthenticationSelector;
import org.eclipse.aether.repository.MirrorSelector;
import org.eclipse.aether.repository.RemoteRepository;
import org.eclipse.aether.resolution.DependencyRequest;
import org.eclipse.aether.transfer.AbstractTransferListener;
import org.eclipse.aether.transfer.TransferCancelledException;
import org.eclipse.aether.transfer.TransferEvent;
import org.eclipse.aether.transfer.TransferListener;
import org.eclipse.sisu.Priority;

/**
 * Has Maven resolve what the phases of a project may ask for, and runs no plugin and no extension.
 *
 * <p>A core extension of the fetch step's own Maven run, given by maven.ext.class.path and compiled
 * there. Once the projects are read it resolves their dependencies, plugins, the plugins' own
 * dependencies and what surefire and the compiler plugin ask for at run time; then Maven ends.
 *
 * <p>Properties: cleanroom.hosts (HOST:PORT of repositories, comma-separated), cleanroom.trusted
 * (those that the caller's settings name: only these get the caller's logins), cleanroom.extensions
 * (G:A:V of the project's core extensions), cleanroom.answer (the file to write). The answer has
 * lines of words separated by tabs: "repository ID URL", "refused URL", "missing ENTRY REASON",
 * "extension ID".
 */
@Named("cleanroom")
@Singleton
public class Resolve extends AbstractMavenLifecycleParticipant {
    private static final String CENTRAL = "https://repo.maven.apache.org/maven2";
    private static final String SUREFIRE = "org.apache.maven.surefire";
    private static final String PLUGINS = "org.apache.maven.plugins";
    // What core Maven can build without an extension.
    private static final Set<String> PACKAGINGS = new HashSet<>(Arrays.asList(
            "pom", "jar", "war", "ejb", "ear", "rar", "par", "ejb3", "maven-plugin"));
    private static final Set<String> answers = new LinkedHashSet<>();

    private final ProjectDependenciesResolver dependencies;
    private final PluginDependenciesResolver plugins;
    private final PluginVersionResolver versions;
    private final PluginPrefixResolver prefixes;
    private final RepositorySystem repositories;
    private final Set<String> done = new HashSet<>();

    @Inject
    public Resolve(
            ProjectDependenciesResolver dependencies,
            PluginDependenciesResolver plugins,
            PluginVersionResolver versions,
            PluginPrefixResolver prefixes,
            RepositorySystem repositories) {
        this.dependencies = dependencies;
        this.plugins = plugins;
        this.versions = versions;
        this.prefixes = prefixes;
        this.repositories = repositories;
    }

    static synchronized void answer(String... words) {
        List<String> clean = new ArrayList<>();
        for (String word : words) {
            clean.add(String.valueOf(word).replaceAll("\\s+", " "));
        }
        answers.add(String.join("\t", clean));
    }

    // --- before the projects are read

    /**
     * Has Java trust the caller's certificates and no others, as the other managers do.
     *
     * <p>Java reads no PEM by itself. Its own certificates stay where the file cannot be read.
     */
    static void trust(Path certificates) {
        char[] password = "cleanroom".toCharArray();
        Path made = Paths.get("trusted.p12").toAbsolutePath();
        try (InputStream in = Files.newInputStream(certificates);
                OutputStream out = Files.newOutputStream(made)) {
            KeyStore store = KeyStore.getInstance("PKCS12");
            store.load(null, password);
            int number = 0;
            for (Certificate one :
                    CertificateFactory.getInstance("X.509").generateCertificates(in)) {
                store.setCertificateEntry("own-" + number++, one);
            }
            store.store(out, password);
        } catch (GeneralSecurityException | IOException error) {
            System.err.println(certificates + ": no certificates that Java reads: " + error);
            return;
        }
        System.setProperty("javax.net.ssl.trustStore", made.toString());
        System.setProperty("javax.net.ssl.trustStoreType", "PKCS12");
        System.setProperty("javax.net.ssl.trustStorePassword", new String(password));
    }

    /** Takes extensions out of every model before Maven would load them. */
    @Named("default")
    @Singleton
    @Priority(1000)
    public static class WithoutExtensions implements PluginManagementInjector {
        private final PluginManagementInjector before = new DefaultPluginManagementInjector();

        static {
            // Of what is ours this is loaded first, and before anything is downloaded.
            String certificates = System.getenv("SSL_CERT_FILE");
            if (certificates != null && !certificates.isEmpty()) {
                trust(Paths.get(certificates));
            }
        }

        @Override
        public void injectManagement(
                Model model, ModelBuildingRequest request, ModelProblemCollector problems) {
            before.injectManagement(model, request, problems);
            if (!request.isProcessPlugins()) {
                return; // the model of a dependency: Maven loads nothing for it
            }
            if (!PACKAGINGS.contains(model.getPackaging())) {
                // The extension would say what this packaging runs; most are jars with more to do.
                answer("extension", "packaging " + model.getPackaging());
                model.setPackaging("jar");
            }
            if (model.getBuild() == null) {
                return;
            }
            List<Plugin> found = new ArrayList<>();
            for (Extension one : model.getBuild().getExtensions()) {
                found.add(plugin(one.getGroupId(), one.getArtifactId(), one.getVersion()));
            }
            model.getBuild().getExtensions().clear();
            for (Plugin one : model.getBuild().getPlugins()) {
                if (one.isExtensions()) {
                    answer("extension", one.getKey());
                    one.setExtensions(false);
                }
            }
            for (Plugin one : found) {
                answer("extension", one.getKey());
                // It stays in the model as a plugin that nothing runs, so that it is resolved.
                if (!model.getBuild().getPluginsAsMap().containsKey(one.getKey())) {
                    model.getBuild().addPlugin(one);
                }
            }
            model.getBuild().flushPluginMap();
        }
    }

    @Override
    public void afterSessionStart(MavenSession session) {
        DefaultRepositorySystemSession own =
                (DefaultRepositorySystemSession) session.getRepositorySession();
        own.setIgnoreArtifactDescriptorRepositories(true);
        Set<String> hosts = words(session, "cleanroom.hosts");
        Set<String> trusted = words(session, "cleanroom.trusted");
        MirrorSelector mirrors = own.getMirrorSelector();
        own.setMirrorSelector(repository -> {
            RemoteRepository mirror = mirrors.getMirror(repository);
            RemoteRepository used = mirror != null ? mirror : repository;
            if (hosts.contains(host(used.getUrl()))) {
                answer("repository", used.getId(), used.getUrl());
                return mirror;
            }
            answer("refused", used.getUrl());
            answer("repository", repository.getId(), CENTRAL);
            return new RemoteRepository.Builder(repository).setUrl(CENTRAL).build();
        });
        own.setTransferListener(new Pace(own.getTransferListener()));
        // Maven sends the login of a server's id to whatever address a project gives that id.
        AuthenticationSelector logins = own.getAuthenticationSelector();
        own.setAuthenticationSelector(
                one -> trusted.contains(host(one.getUrl())) ? logins.getAuthentication(one) : null);
    }

    // --- once they are read

    @Override
    public void afterProjectsRead(MavenSession session) {
        int status = 0;
        try {
            Set<String> own = new HashSet<>();
            for (MavenProject project : session.getProjects()) {
                own.add(project.getGroupId() + ":" + project.getArtifactId() + ":"
                        + project.getVersion());
            }
            for (MavenProject project : session.getProjects()) {
                session.setCurrentProject(project);
                resolve(session, project, own);
            }
            MavenProject top = session.getTopLevelProject();
            session.setCurrentProject(top);
            commandLine(session, top, "dependency");
            for (String extension : words(session, "cleanroom.extensions")) {
                String[] parts = extension.split(":");
                resolvePlugin(session, top, plugin(parts[0], parts[1], parts[2]));
            }
            Path answer = Paths.get(session.getUserProperties().getProperty("cleanroom.answer"));
            Files.write(answer, answers, StandardCharsets.UTF_8);
        } catch (IOException | RuntimeException error) {
            error.printStackTrace();
            status = 3;
        }
        System.exit(status);
    }

    private void resolve(MavenSession session, MavenProject project, Set<String> own) {
        DependencyFilter others = (node, parents) -> {
            Artifact one = node.getArtifact();
            return one == null || !own.contains(
                    one.getGroupId() + ":" + one.getArtifactId() + ":" + one.getBaseVersion());
        };
        Map<String, String> tested = new LinkedHashMap<>();
        try {
            DefaultDependencyResolutionRequest request = new DefaultDependencyResolutionRequest(
                    project, session.getRepositorySession());
            request.setResolutionFilter(others);
            note(tested, dependencies.resolve(request).getDependencies());
        } catch (DependencyResolutionException error) {
            note(tested, error.getResult().getDependencies());
            missing(project.getId(), error);
        }
        for (Plugin plugin : project.getBuildPlugins()) {
            boolean site = plugin.getArtifactId().equals("maven-site-plugin");
            if (site && plugin.getExecutions().size() <= 2 && plugin.getConfiguration() == null) {
                continue; // bound by default to a lifecycle that has nothing to do with building
            }
            resolvePlugin(session, project, plugin);
            if (plugin.getKey().matches(PLUGINS + ":maven-(surefire|failsafe)-plugin")) {
                providers(session, project, plugin.getVersion(), tested);
            }
            if (plugin.getKey().equals(PLUGINS + ":maven-compiler-plugin")) {
                processors(session, project, plugin, plugin.getConfiguration());
                for (PluginExecution execution : plugin.getExecutions()) {
                    processors(session, project, plugin, execution.getConfiguration());
                }
            }
        }
    }

    private static void note(
            Map<String, String> found, Collection<org.eclipse.aether.graph.Dependency> all) {
        for (org.eclipse.aether.graph.Dependency one : all) {
            Artifact artifact = one.getArtifact();
            found.put(artifact.getGroupId() + ":" + artifact.getArtifactId(),
                    artifact.getVersion());
        }
    }

    private void resolvePlugin(MavenSession session, MavenProject project, Plugin plugin) {
        try {
            if (plugin.getVersion() == null) {
                plugin.setVersion(versions
                        .resolve(new DefaultPluginVersionRequest(plugin, session)).getVersion());
            }
            StringBuilder key = new StringBuilder(plugin.getId());
            for (Dependency one : plugin.getDependencies()) {
                key.append(' ').append(one.getManagementKey()).append(one.getVersion());
            }
            if (!done.add(key.toString())) {
                return;
            }
            RepositorySystemSession own = session.getRepositorySession();
            List<RemoteRepository> from = project.getRemotePluginRepositories();
            plugins.resolve(plugin, plugins.resolve(plugin, from, own), null, from, own);
        } catch (Exception error) {
            missing(plugin.getId(), error);
        }
    }

    /** A plugin that people call by its prefix and that no project names. */
    private void commandLine(MavenSession session, MavenProject project, String prefix) {
        try {
            PluginPrefixResult found =
                    prefixes.resolve(new DefaultPluginPrefixRequest(prefix, session));
            Plugin plugin = plugin(found.getGroupId(), found.getArtifactId(), null);
            Plugin managed = project.getPluginManagement() == null ? null
                    : project.getPluginManagement().getPluginsAsMap().get(plugin.getKey());
            resolvePlugin(session, project,
                    managed != null && managed.getVersion() != null ? managed : plugin);
        } catch (Exception error) {
            missing(prefix, error);
        }
    }

    // --- what plugins resolve only when they run

    /** What surefire takes for the test frameworks of a project, as its documentation lists it. */
    private void providers(
            MavenSession session, MavenProject project, String version, Map<String, String> tested) {
        String platform = tested.get("org.junit.platform:junit-platform-commons");
        if (tested.containsKey("org.junit.platform:junit-platform-engine")) {
            platform = tested.get("org.junit.platform:junit-platform-engine");
        }
        String jupiter = tested.get("org.junit.jupiter:junit-jupiter-api");
        if (platform != null || jupiter != null) {
            closure(session, project, SUREFIRE, "surefire-junit-platform", version);
            if (jupiter != null) {
                closure(session, project, "org.junit.jupiter", "junit-jupiter-engine", jupiter);
            }
            if (platform != null) {
                String group = "org.junit.platform";
                closure(session, project, group, "junit-platform-launcher", platform);
                closure(session, project, group, "junit-platform-engine", platform);
            }
        } else if (tested.containsKey("org.testng:testng")) {
            closure(session, project, SUREFIRE, "surefire-testng", version);
        } else if (tested.containsKey("junit:junit") || tested.containsKey("junit:junit-dep")) {
            closure(session, project, SUREFIRE, "surefire-junit4", version);
            closure(session, project, SUREFIRE, "surefire-junit47", version);
        } else {
            closure(session, project, SUREFIRE, "surefire-junit3", version);
        }
    }

    private void processors(
            MavenSession session, MavenProject project, Plugin plugin, Object configuration) {
        Xpp3Dom paths = configuration instanceof Xpp3Dom
                ? ((Xpp3Dom) configuration).getChild("annotationProcessorPaths") : null;
        if (paths == null) {
            return;
        }
        for (Xpp3Dom path : paths.getChildren()) {
            String group = text(path, "groupId");
            String name = text(path, "artifactId");
            String version = text(path, "version");
            if (version == null && project.getDependencyManagement() != null) {
                for (Dependency one : project.getDependencyManagement().getDependencies()) {
                    if (one.getGroupId().equals(group) && one.getArtifactId().equals(name)) {
                        version = one.getVersion();
                    }
                }
            }
            if (group != null && name != null && version != null) {
                closure(session, project, group, name, version);
            }
        }
    }

    private void closure(
            MavenSession session, MavenProject project, String group, String name, String version) {
        String entry = group + ":" + name + ":" + version;
        if (!done.add(entry)) {
            return;
        }
        Set<RemoteRepository> from = new LinkedHashSet<>(project.getRemotePluginRepositories());
        from.addAll(project.getRemoteProjectRepositories());
        Artifact artifact = new DefaultArtifact(group, name, "jar", version);
        org.eclipse.aether.graph.Dependency wanted =
                new org.eclipse.aether.graph.Dependency(artifact, "runtime");
        // A root's own dependency management counts, and that of a dependency does not:
        // plugins ask in either way, and so for other versions.
        for (boolean root : new boolean[] {true, false}) {
            CollectRequest collected = new CollectRequest();
            if (root) {
                collected.setRoot(wanted);
            } else {
                collected.addDependency(wanted);
            }
            collected.setRepositories(new ArrayList<>(from));
            try {
                repositories.resolveDependencies(
                        session.getRepositorySession(), new DependencyRequest(collected, null));
            } catch (Exception error) {
                missing(entry, error);
            }
        }
    }

    // --- repositories that never end a file

    /**
     * Ends Maven where a file comes too slowly: one byte now and then is no silence.
     *
     * <p>No file can be cancelled by itself: Maven tells of bytes by the buffer.
     */
    private static final class Pace extends AbstractTransferListener {
        private static final long WINDOW = 60; // seconds
        private static final long SLOWEST = 100; // bytes a second, as of the engine's downloads
        private final TransferListener next;
        // of each file that is on its way: when its window began, and the bytes before it
        private final Map<String, long[]> windows = new ConcurrentHashMap<>();
        private final Map<String, Long> bytes = new ConcurrentHashMap<>();

        Pace(TransferListener next) {
            this.next = next;
            Thread watch = new Thread(this::watch);
            watch.setDaemon(true);
            watch.start();
        }

        private void watch() {
            while (true) {
                try {
                    Thread.sleep(1000);
                } catch (InterruptedException error) {
                    return;
                }
                for (Map.Entry<String, long[]> one : windows.entrySet()) {
                    long now = System.nanoTime();
                    long[] window = one.getValue();
                    long seconds = (now - window[0]) / 1_000_000_000L;
                    long had = bytes.getOrDefault(one.getKey(), 0L);
                    if (seconds < WINDOW) {
                        continue;
                    }
                    if (had - window[1] < SLOWEST * seconds) {
                        System.out.println(
                                "[ERROR] " + one.getKey() + ": less than " + SLOWEST
                                + " bytes a second");
                        System.out.flush();
                        Runtime.getRuntime().halt(1);
                    }
                    windows.replace(one.getKey(), window, new long[] {now, had});
                }
            }
        }

        private static String key(TransferEvent event) {
            return event.getResource().getRepositoryUrl() + event.getResource().getResourceName();
        }

        private void ended(TransferEvent event) {
            windows.remove(key(event));
            bytes.remove(key(event));
        }

        @Override
        public void transferInitiated(TransferEvent event) throws TransferCancelledException {
            windows.put(key(event), new long[] {System.nanoTime(), 0});
            if (next != null) {
                next.transferInitiated(event);
            }
        }

        @Override
        public void transferProgressed(TransferEvent event) throws TransferCancelledException {
            bytes.put(key(event), event.getTransferredBytes());
            if (next != null) {
                next.transferProgressed(event);
            }
        }

        @Override
        public void transferSucceeded(TransferEvent event) {
            ended(event);
            if (next != null) {
                next.transferSucceeded(event);
            }
        }

        @Override
        public void transferFailed(TransferEvent event) {
            ended(event);
            if (next != null) {
                next.transferFailed(event);
            }
        }
    }

    // --- helpers

    private static void missing(String entry, Exception error) {
        answer("missing", entry, String.valueOf(error.getMessage()));
    }

    private static Plugin plugin(String group, String name, String version) {
        Plugin made = new Plugin();
        made.setGroupId(group);
        made.setArtifactId(name);
        made.setVersion(version);
        return made;
    }

    private static String text(Xpp3Dom node, String name) {
        Xpp3Dom child = node.getChild(name);
        return child == null || child.getValue() == null ? null : child.getValue().trim();
    }

    private static Set<String> words(MavenSession session, String property) {
        String text = session.getUserProperties().getProperty(property, "");
        Set<String> found = new LinkedHashSet<>(Arrays.asList(text.split(",")));
        found.remove("");
        return found;
    }

    private static String host(String url) {
        try {
            URI parsed = URI.create(url);
            int standard = "https".equals(parsed.getScheme()) ? 443 : 80;
            int port = parsed.getPort() < 0 ? standard : parsed.getPort();
            return String.valueOf(parsed.getHost()).toLowerCase(java.util.Locale.ROOT) + ":" + port;
        } catch (IllegalArgumentException error) {
            return "";
        }
    }
}
