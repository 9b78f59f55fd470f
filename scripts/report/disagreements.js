"use strict";
// Shows the questions that one model answered right and another wrong. Without this script all of them are shown.
const form = document.querySelector(".choices");
if (form) {
  const [right, wrong, subject] = ["right", "wrong", "subject"].map((id) => document.getElementById(id));
  const cards = [...document.querySelectorAll(".card")];
  const show = () => {
    let numShown = 0;
    for (const card of cards) {
      const rightModels = card.dataset.right.split(" ");
      const isShown = (!right.value || rightModels.includes(right.value))
        && (!wrong.value || !rightModels.includes(wrong.value))
        && (!subject || !subject.value || card.dataset.subject === subject.value);
      card.hidden = !isShown;
      numShown += isShown;
    }
    document.getElementById("num-shown").textContent = `${numShown} of ${cards.length} shown`;
  };
  document.getElementById("swap").addEventListener("click", () => {
    [right.value, wrong.value] = [wrong.value, right.value];
    show();
  });
  form.addEventListener("change", show);
  form.hidden = false;
  show();
}
