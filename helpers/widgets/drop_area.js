const PIECE = 4 * 1024 * 1024; // bytes

// What can't be read, such as a folder, is sent as an empty file: the verdict under it says so.
async function read(file) {
  try {
    return await file.arrayBuffer();
  } catch {
    return new ArrayBuffer(0);
  }
}

async function send(model, files) {
  for (const file of files) {
    const data = await read(file);
    model.send({ kind: "file", name: file.name });
    for (let from = 0; from < data.byteLength; from += PIECE) {
      model.send({ kind: "piece" }, undefined, [data.slice(from, from + PIECE)]);
    }
  }
  model.send({ kind: "end" });
}

function render({ model, el }) {
  const area = document.createElement("div");
  area.className = "drop-area";
  area.textContent = model.get("label");
  const mark = (event, over) => {
    event.preventDefault(); // else the browser opens the file
    event.stopPropagation();
    area.classList.toggle("over", over);
  };
  area.addEventListener("dragover", (event) => mark(event, true));
  area.addEventListener("dragleave", (event) => mark(event, false));
  area.addEventListener("drop", (event) => {
    mark(event, false);
    send(model, [...event.dataTransfer.files]);
  });
  el.appendChild(area);
}

export default { render };
