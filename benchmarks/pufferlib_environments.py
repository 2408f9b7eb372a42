"""PufferLib's environments beside ours on one core: `python benchmarks/pufferlib_environments.py FOLDER [gcc options]`.

FOLDER is an unpacked source distribution of pufferlib 3.0.0 (its installation fetches raylib). Its C environments are
compiled alone, without their pictures (with its own `-O2`, or the options given); 4096 agents step in one loop over
instances as in its `vec_step`, random actions, observations written, without what its Python adds. Ours: as many rows.
In turn, the best of three runs each, nanoseconds of CPU time per step (of several agents, each one's) of 16 steps in a
row.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from two_versions import ONE

# name, how the C struct is set, observations, numbers of actions, agents of an instance, types, ours
BREAKOUT = "width=576; e->height=330; e->paddle_width=62; e->paddle_height=8; e->ball_width=32; e->ball_height=32; " \
    "e->brick_width=32; e->brick_height=12; e->brick_rows=6; e->brick_cols=18; init(e);"  # fmt: skip
PONG = "width=500; e->height=640; e->paddle_width=20; e->paddle_height=70; e->ball_width=32; e->ball_height=32; " \
    "e->paddle_speed=8; e->ball_initial_speed_x=10; e->ball_initial_speed_y=1; e->ball_speed_y_increment=3; " \
    "e->ball_max_speed_y=13; e->max_score=21; e->frameskip=1; init(e);"  # fmt: skip
SNAKE = "width=138; e->height=138; e->num_snakes=AGENTS; e->vision=5; e->food=512; " \
    "e->leave_corpse_on_death=1; e->reward_food=0.1f; e->reward_corpse=0.1f; e->reward_death=-1; " \
    "e->max_snake_length=64; init_csnake(e);"  # fmt: skip
GAMES = [
    ("cartpole", "Cartpole", "continuous=0; init(e);", 4, 2, 1, "float", "float", {}),
    ("pong", "Pong", PONG, 8, 3, 1, "float", "float", {"frames_per_action": 1}),
    ("breakout", "Breakout", f"frameskip=1; e->{BREAKOUT}", 118, 3, 1, "float", "float", {"frames_per_action": 1}),
    ("breakout", "Breakout", f"frameskip=4; e->{BREAKOUT}", 118, 3, 1, "float", "float", {}),
    ("snake", "CSnake", SNAKE, 121, 4, 256, "char", "int", {"num_snakes": 256, "size": 128, "num_food": 512}),
]
RAYLIB = """#include <stdbool.h>
typedef struct { unsigned char r, g, b, a; } Color;
typedef struct { int id; } Texture2D;
"""
DRIVER = """#define _GNU_SOURCE
#include <time.h>
#include "game.h"
enum { INSTANCES = 4096 / AGENTS };
static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}
static unsigned char drawn[16][4096];
int printf(const char *, ...);
int main(void) {
    ENV *all = calloc(INSTANCES, sizeof(ENV));
    OBSERVATION *observation = calloc(4096 * SIZE, sizeof(OBSERVATION));
    ACTION *action = calloc(4096, sizeof(ACTION));
    float *reward = calloc(4096, sizeof(float));
    unsigned char *terminal = calloc(4096, 1);
    for (int k = 0; k < 16; k++) for (int i = 0; i < 4096; i++) drawn[k][i] = rand() % ACTIONS;
    for (int i = 0; i < INSTANCES; i++) {
        ENV *e = all + i;
        e->observations = observation + i * AGENTS * SIZE;
        e->actions = action + i * AGENTS;
        e->rewards = reward + i * AGENTS;
        e->terminals = terminal + i * AGENTS;
        e->SETTINGS
        c_reset(e);
    }
    double best = 1e9, end = now() + 1.5;
    while (now() < end) {
        double spent = 0;
        for (int k = 0; k < 16; k++) {
            for (int i = 0; i < 4096; i++) action[i] = drawn[k][i];
            double start = now();
            for (int i = 0; i < INSTANCES; i++) c_step(all + i);
            spent += now() - start;
        }
        if (spent < best) best = spent;
    }
    printf("%.3f\\n", best / 16 / 4096 * 1e9);
}
"""
PICTURES = re.compile(
    r"^(?:const )?Color .*?;\n|^(?:Client ?\* ?make_client|void close_client|void c_render)\(.*?^}\n", re.M | re.S
)


def compile_theirs(folder: Path, place: Path, options: list[str], game: tuple) -> Path:
    name, struct, settings, size, actions, agents, observation, action, _ = game
    text = (folder / "pufferlib" / "ocean" / name / f"{name}.h").read_text(encoding="utf-8")
    (place / "game.h").write_text(PICTURES.sub("", text), encoding="utf-8")
    (place / "raylib.h").write_text(RAYLIB, encoding="utf-8")
    (place / "drive.c").write_text(DRIVER.replace("e->SETTINGS", f"e->{settings}"), encoding="utf-8")
    values = {"ENV": struct, "SIZE": size, "ACTIONS": actions, "AGENTS": agents,
              "OBSERVATION": observation, "ACTION": action}  # fmt: skip
    defined = [f"-D{key}={value}" for key, value in values.items()]
    out = place / "drive"
    command = ["gcc", "-w", *options, *defined, "-I", str(place), str(place / "drive.c"), "-o", str(out), "-lm"]
    subprocess.run(command, check=True)
    return out


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    print("| environment | PufferLib, ns | ours, ns | PufferLib, M steps/s | ours | ratio |\n|---|---|---|---|---|---|")
    for game in GAMES:
        best = [float("inf")] * 2
        with tempfile.TemporaryDirectory() as place:
            theirs = compile_theirs(Path(sys.argv[1]), Path(place), sys.argv[2:] or ["-O2"], game)
            for _ in range(3):
                for i, command in enumerate(([str(theirs)], [sys.executable, "-c", ONE, json.dumps(game[-1])])):
                    said = subprocess.run(command, input=game[0] + "\n" * 8, capture_output=True, text=True, check=True)
                    best[i] = min([best[i], *map(float, said.stdout.split())])
        theirs_ns, ours_ns = best
        print(f"| {game[0]} {game[-1] or ''} | {theirs_ns:.1f} | {ours_ns:.1f} | {1e3 / theirs_ns:.1f} "
              f"| {1e3 / ours_ns:.1f} | {theirs_ns / ours_ns:.2f} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
