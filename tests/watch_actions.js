// What tests/test_watch_page.py has a browser do with the page: read it, pause, step, change the speed, begin anew; and
// send what came of it to the test.
const said = [];
addEventListener("error", (event) => said.push(`error: ${event.message}`));
addEventListener("securitypolicyviolation", (event) => said.push(`error: ${event.violatedDirective}`));
const text = (id) => document.getElementById(id).textContent, number = () => Number(text("step_number").replace(/,/g, ""));
const until = async (what, condition) => { for (let i = 0; i < 400 && !condition(); i++) await new Promise((wait) => setTimeout(wait, 50)); said.push(`${what} ${Boolean(condition())}`); };
(async () => {
  await until("runs", () => number() >= 5 && document.querySelector("#chart path"));
  const picture = document.getElementById("picture"), bars = [...document.querySelectorAll(".action")];
  said.push(`picture ${picture.naturalWidth}x${picture.naturalHeight}, title ${text("title")}`);
  said.push(`actions ${bars.map((row) => row.querySelector("i").textContent).join("|")}, best ${document.querySelectorAll(".action.best").length}`);
  said.push(`percent ${Math.round(bars.reduce((sum, row) => sum + parseFloat(row.querySelector("u").style.width), 0))}`);
  said.push(`value ${Number.isFinite(Number(text("value")))}, ${text("entropy")}`);
  document.getElementById("pause").click();
  await until("pauses", () => text("note") === "paused" && text("pause") === "Play");
  await new Promise((wait) => setTimeout(wait, 300));
  const before = number(), shown = picture.src;
  await new Promise((wait) => setTimeout(wait, 300));
  said.push(`stands still ${number() === before && picture.src === shown}`);
  document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
  await until("steps once", () => number() === before + 1);
  const speed = document.getElementById("speed");
  speed.value = 6;
  speed.dispatchEvent(new Event("input"));
  await until("speed", () => text("speed_text") === "8×");
  document.getElementById("restart").click();
  await until("anew", () => number() <= 1);
  document.getElementById("pause").click();
  await until("an end", () => text("mean").startsWith("mean "));
  said.push(`episodes ${document.querySelectorAll("#episodes rect").length > 0}, wide ${document.documentElement.scrollWidth > innerWidth}`);
  await fetch("/said", { method: "POST", body: JSON.stringify({ said: said.join("\n") }) });
})();
